// The verb `pretrained`: its flags and what it prints.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "ingest/size_text.h"
#include "ingest/verbs.h"
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
  return 0;
}

}  // namespace mdm::ingest
