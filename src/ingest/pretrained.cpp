#include "mdm/ingest/pretrained.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "ingest/shown.h"
#include "ingest/size_text.h"
#include "mdm/core/cache_folder.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/text/text_model.h"
#include "text/spiece_model.h"

namespace mdm {
namespace ingest {
namespace {

namespace fs = std::filesystem;
using PretrainedNote = nlohmann::ordered_json;

constexpr size_t kMostNoteBytes = size_t{1} << 20;
constexpr size_t kMostIndexBytes = size_t{64} << 20;
constexpr const char* kIndexName = "model.safetensors.index.json";

struct PublishedModel {
  const char* name;
  const char* path;  // below PretrainedSettings::model_url
  const char* file;
  const char* config;
};
constexpr PublishedModel kPublished[] = {
    {"flickr64", "flickr64/vis_model.pth", "vis_model_64x64.pth", "configs/models/cc12m_64x64.yaml"},
    {"flickr256", "flickr256/vis_model.pth", "vis_model_256x256.pth", "configs/models/cc12m_256x256.yaml"},
    {"flickr1024", "flickr1024/vis_model.pth", "vis_model_1024x1024.pth", "configs/models/cc12m_1024x1024.yaml"},
};

const PublishedModel& published(const std::string& name) {
  std::vector<std::string> names;
  for (const PublishedModel& model : kPublished) {
    if (name == model.name) return model;
    names.push_back(model.name);
  }
  const auto nearest = nearest_name(name, names);
  fail<ConfigError>("no published model is called '", printable(name),
                    "'; there are flickr64, flickr256 and flickr1024",
                    nearest.empty() ? "" : concat("; is ", nearest, " meant?"));
}

// Names of files that an index may give.
bool is_bare(const std::string& name) {
  const auto is_plain = [](unsigned char c) { return c > 0x20 && c < 0x7F && c != '/' && c != '\\'; };
  return !name.empty() && name.size() < 200 && name[0] != '.' && std::all_of(name.begin(), name.end(), is_plain);
}

// Whether a file begins as what its name says it is: a server's page about an error (or a log-in) must not be recorded
// as weights. The loaders look closer.
bool begins_as_named(const fs::path& file, const std::string& name) {
  constexpr size_t kLengthBytes = 8;  // of a safetensors header
  const auto ends_in = [&](std::string_view ending) {
    return name.size() >= ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
  };
  const auto bytes = FileBytes::open(file);
  const std::string_view text = bytes->view().substr(0, 64);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (ends_in(".json")) return first != std::string_view::npos && text[first] == '{';
  if (ends_in(".safetensors")) return text.size() > kLengthBytes && text[kLengthBytes] == '{';
  if (ends_in(".pth")) return text.substr(0, 2) == "PK" || text.substr(0, 1) == "\x80";  // a zip archive or a pickle
  if (ends_in("spiece.model")) return looks_like_spiece_model(bytes->view());
  return true;
}

class Fetcher {
 public:
  explicit Fetcher(const PretrainedSettings& settings) : settings_(settings) {}

  PretrainedItem model(const std::string& name) {
    const PublishedModel& model = published(name);
    const fs::path folder = settings_.folder.empty() ? default_cache_folder() / "models" : settings_.folder;
    make_writable_folder(folder);
    PretrainedItem item{name, folder / model.file, 0, false, model.config};
    HttpClient client(options());
    take(client, settings_.model_url + '/' + model.path, item.path, item);
    return item;
  }

  PretrainedItem text_model(const std::string& id) {
    if (!is_model_id(id)) fail<ConfigError>("'", printable(id), "' is no id of a text model like google/flan-t5-xl");
    const fs::path folder =
        text_model_folder(settings_.folder.empty() ? default_cache_folder() / "text" : settings_.folder, id);
    PretrainedItem item{id, folder, 0, false, {}};
    std::error_code ignored;
    const bool complete = fs::exists(folder, ignored);
    // While files are missing the folder has another name, so that nobody takes it for whole.
    const fs::path work = complete ? folder : fs::path(folder.string() + ".part");
    make_writable_folder(work);
    HttpOptions options = this->options();
    if (!settings_.token.empty()) options.headers.emplace_back("Authorization", "Bearer " + settings_.token);
    HttpClient client(options);
    const std::string base = text_server() + '/' + id + "/resolve/" + settings_.revision + '/';
    for (const char* name : {"config.json", "spiece.model"}) take(client, base + name, work / name, item);
    for (const std::string& name : weights(client, base, work, item)) take(client, base + name, work / name, item);
    find_text_model_files(work);  // what the T5 loader would say of them
    if (!complete) {
      fs::rename(work, folder, ignored);
      if (ignored) fail(shown(folder), ": can't be put in place: ", ignored.message());
      flush_folder(folder.parent_path());
    }
    return item;
  }

 private:
  HttpOptions options() {
    HttpOptions options = settings_.http;
    options.total_seconds = std::max(options.total_seconds, 86400.0);  // of one try, for tens of gigabytes
    options.progress = [this](uint64_t done, std::optional<uint64_t> total) {
      if (settings_.show) settings_.show(shown_file_, done, total.value_or(0));
    };
    return options;
  }

  std::string text_server() const {
    if (!settings_.text_url.empty()) return settings_.text_url;
    const char* endpoint = std::getenv("HF_ENDPOINT");
    return endpoint != nullptr && *endpoint != '\0' ? endpoint : "https://huggingface.co";
  }

  // The files with the weights: those of the index where there is one.
  std::vector<std::string> weights(HttpClient& client, const std::string& base, const fs::path& folder,
                                   PretrainedItem& item) {
    std::error_code ignored;
    if (!fs::exists(folder / kIndexName, ignored) && fs::exists(folder / "model.safetensors", ignored)) {
      return {"model.safetensors"};
    }
    try {
      take(client, base + kIndexName, folder / kIndexName, item);
    } catch (const NetError& error) {
      if (error.kind() != NetError::Kind::kStatus || error.status() != 404) throw;
      return {"model.safetensors"};
    }
    const auto index = nlohmann::json::parse(read_text_file(folder / kIndexName, kMostIndexBytes), nullptr, false);
    std::set<std::string> names;
    if (index.is_object() && index.contains("weight_map") && index["weight_map"].is_object()) {
      for (const auto& [tensor, name] : index["weight_map"].items()) {
        if (!name.is_string() || !is_bare(name.get<std::string>())) {
          fail<DataError>(shown(folder / kIndexName), ": names '", printable(name.dump()),
                          "', which is no file beside it");
        }
        names.insert(name.get<std::string>());
      }
    }
    if (names.empty()) fail<DataError>(shown(folder / kIndexName), ": names no files");
    return {names.begin(), names.end()};
  }

  static fs::path note_of(const fs::path& file) { return file.string() + ".json"; }

  // What was recorded of a file; null when nothing was.
  static PretrainedNote recorded(const fs::path& file) {
    std::error_code ignored;
    if (!fs::exists(note_of(file), ignored)) return nullptr;
    PretrainedNote note = PretrainedNote::parse(read_text_file(note_of(file), kMostNoteBytes), nullptr, false);
    const bool sound = note.is_object() && note.contains("sha256") && note["sha256"].is_string() &&
                       note.contains("bytes") && note["bytes"].is_number_unsigned();
    return sound ? note : PretrainedNote(nullptr);
  }

  // Compares with the record, or makes it. The file has just come to `file`, or is there under `name` already.
  void settle(const std::string& url, const fs::path& file, const fs::path& name) const {
    const FileDigest digest = digest_file(file);
    const PretrainedNote note = recorded(name);
    if (!note.is_null() && note["sha256"] != digest.hex) {
      const std::string text = concat(shown(file), ": is another file than the one recorded: SHA-256 ", digest.hex,
                                      ", ", digest.bytes, " bytes, not ", printable(note["sha256"].get<std::string>()),
                                      ", ", note["bytes"].get<uint64_t>(), " bytes");
      if (!settings_.accept_changed) fail<DataError>(text, " (--accept-changed takes it)");
      log_warning(text);
    }
    if (!note.is_null() && note["sha256"] == digest.hex) return;
    write_file(note_of(name),
               PretrainedNote{{"url", url}, {"bytes", digest.bytes}, {"sha256", digest.hex}}.dump(2) + '\n');
  }

  void take(HttpClient& client, const std::string& url, const fs::path& file, PretrainedItem& item) {
    std::error_code ignored;
    if (fs::exists(file, ignored)) {
      const PretrainedNote note = recorded(file);
      const bool same_size = !note.is_null() && note["bytes"] == fs::file_size(file, ignored);
      if (settings_.check || !same_size) settle(url, file, file);
    } else {
      download(client, url, file);
      item.fetched = true;
    }
    item.bytes += fs::file_size(file, ignored);
  }

  // Under another name until it is known to be the recorded one.
  void download(HttpClient& client, const std::string& url, const fs::path& file) {
    const fs::path fresh = file.string() + ".new";
    std::error_code ignored;
    if (!fs::exists(fresh, ignored)) {
      check_room(client, url, fresh);
      shown_file_ = file.filename().string();
      client.download(url, fresh);
    }
    if (!begins_as_named(fresh, file.filename().string())) {
      const std::string text = printable(FileBytes::open(fresh)->view().substr(0, 60));
      fs::remove(fresh, ignored);
      fail<DataError>(shown_url(url), ": what came is no ", printable(file.extension().string()),
                      " file; it begins with \"", text, '"');
    }
    try {
      settle(url, fresh, file);
    } catch (const DataError&) {
      fs::remove(fresh, ignored);
      throw;
    }
    fs::rename(fresh, file, ignored);
    if (ignored) fail(shown(file), ": can't be put in place: ", ignored.message());
    flush_folder(file.parent_path());
  }

  // A server that tells the size in advance is asked for one byte.
  void check_room(HttpClient& client, const std::string& url, const fs::path& file) const {
    std::optional<uint64_t> total;
    try {
      total = client.get(url, HttpRange{0, 1}).total_bytes;
    } catch (const NetError& error) {
      if (error.kind() != NetError::Kind::kStatus || error.status() == 404) throw;
    }
    std::error_code code;
    const auto space = fs::space(file.parent_path(), code);
    if (code || !total) return;
    uint64_t there = fs::file_size(file.string() + ".part", code);
    if (code) there = 0;
    const uint64_t wanted = *total - std::min(*total, there);
    if (wanted > space.available) {
      fail(shown(file.parent_path()), ": ", printable(file.stem().string()), " takes ", size_text(wanted), ", and ",
           size_text(space.available), " are free");
    }
  }

  const PretrainedSettings& settings_;
  std::string shown_file_;
};

}  // namespace
}  // namespace ingest

std::vector<PretrainedItem> fetch_pretrained(const PretrainedSettings& settings) {
  for (const std::string& name : settings.models) ingest::published(name);  // before anything is downloaded
  std::vector<PretrainedItem> items;
  ingest::Fetcher fetcher(settings);
  for (const std::string& name : settings.models) items.push_back(fetcher.model(name));
  for (const std::string& id : settings.text_models) items.push_back(fetcher.text_model(id));
  return items;
}

}  // namespace mdm
