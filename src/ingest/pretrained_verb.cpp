// The verb `pretrained`: its flags and what it prints.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "ingest/size_text.h"
#include "ingest/verbs.h"
#include "mdm/config/text_config.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/progress.h"
#include "mdm/ingest/pretrained.h"

namespace mdm::ingest {
namespace {

PretrainedSettings pretrained_of(const VerbCall& call) {
  const ParsedCommandLine& line = call.command_line;
  PretrainedSettings settings;
  settings.models = line.values("model");
  settings.text_models = line.values("text-model");
  if (settings.models.empty() && settings.text_models.empty()) {
    fail<ConfigError>("pretrained needs --model (flickr64, flickr256, flickr1024) or --text-model (google/flan-t5-xl)");
  }
  settings.folder = line.option("output-dir");
  settings.model_url = line.option("model-url", settings.model_url);
  settings.text_url = line.option("text-url");
  settings.revision = line.option("revision", settings.revision);
  if (const char* token = std::getenv("HF_TOKEN")) settings.token = token;
  settings.check = line.has("check");
  settings.accept_changed = line.has("accept-changed");
  settings.http.allow_private = line.has("allow-private");
  settings.http.use_proxy = line.has("use-proxy");
  settings.http.ca_file = line.option("ca-file");
  settings.http.cancel = &call.stop;
  return settings;
}

// A bar for each file.
class FileDisplay {
 public:
  void show(const std::string& file, uint64_t done, uint64_t total) {
    constexpr uint64_t kMegabyte = 1000000;
    if (file != file_) {
      bar_.reset();
      ProgressOptions options;
      options.label = file;
      options.total = total / kMegabyte;
      options.initial = done / kMegabyte;
      options.unit = "MB";
      bar_ = std::make_unique<Progress>(options);
      file_ = file;
    }
    bar_->set(done / kMegabyte);
  }
  void end() { bar_.reset(); }

 private:
  std::string file_;
  std::unique_ptr<Progress> bar_;
};

// As a shell takes it.
std::string quoted(const std::string& text) {
  const std::string shown = printable(text, 1000);
  if (shown.find_first_of(" \t\"'\\$`&|;<>()*?[]#~!{}") == std::string::npos) return shown;
  std::string out = "'";
  for (const char c : shown) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// How to draw with what is there now.
void print_use(const std::vector<PretrainedItem>& items, const PretrainedSettings& settings) {
  // In its own place a text model is found by the id that the configs name.
  std::string text;
  for (const PretrainedItem& item : items) {
    const bool is_text = std::count(settings.text_models.begin(), settings.text_models.end(), item.name) > 0;
    if (is_text && (!settings.folder.empty() || item.name != TextConfig().text_model)) {
      text = " --text-model " + quoted(settings.folder.empty() ? item.name : item.path.string());
    }
  }
  for (const PretrainedItem& item : items) {
    if (item.config.empty()) continue;
    std::printf("to draw: sample --checkpoint %s --config_path %s%s --prompt \"a fox in the snow\"\n",
                quoted(item.path.string()).c_str(), item.config.c_str(), text.c_str());
  }
}

}  // namespace

std::vector<AppOption> pretrained_options() {
  return {
      {"model", "NAME", "pretrained: Apple's checkpoint flickr64, flickr256 or flickr1024 (several: name it again)"},
      {"text-model", "ID",
       "pretrained: a text encoder, google/flan-t5-xl for Apple's checkpoints (several: name it again)"},
      {"check", "", "pretrained: read files that are there, and compare them with the SHA-256 recorded when they came"},
      {"accept-changed", "", "pretrained: take a file that is another one than the recorded"},
      {"revision", "NAME", "pretrained: of the text encoder (default main)"},
      {"model-url", "URL", "pretrained: where flickr64/vis_model.pth and the others are (default: Apple's server)"},
      {"text-url", "URL", "pretrained: server of text encoders (default: HF_ENDPOINT, else https://huggingface.co)"},
  };
}

int run_pretrained(const VerbCall& call) {
  PretrainedSettings settings = pretrained_of(call);
  FileDisplay display;
  settings.show = [&display](const std::string& file, uint64_t done, uint64_t total) {
    display.show(file, done, total);
  };
  std::vector<PretrainedItem> items;
  try {
    items = fetch_pretrained(settings);
  } catch (const NetError& error) {
    if (error.kind() != NetError::Kind::kCancelled) throw;
    display.end();
    log_info("stopped; the same command goes on");
    return kStopped;
  }
  display.end();
  for (const PretrainedItem& item : items) {
    std::printf("%s: %s (%s, %s)\n", printable(item.name).c_str(), printable(item.path.string(), 1000).c_str(),
                size_text(item.bytes).c_str(), item.fetched ? "downloaded" : "was there");
  }
  print_use(items, settings);
  return 0;
}

}  // namespace mdm::ingest
