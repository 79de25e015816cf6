// What is looked at in an archive and in a sample.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <utility>

#include "data/dataset_rows.h"
#include "ingest/hash_set.h"
#include "ingest/walk.h"
#include "mdm/core/digest.h"
#include "mdm/core/error.h"
#include "mdm/core/utf8.h"

namespace mdm::ingest {
namespace {

constexpr size_t kBlockBytes = size_t{1} << 20;
constexpr size_t kHeaderBytes = size_t{1} << 16;  // in which most pictures have their header
constexpr size_t kMostJsonBytes = size_t{16} << 20;

// Errors begin with the name of the file that they are about, which a fault tells already.
std::string without_prefix(const std::string& text, std::string_view name) {
  const std::string prefix = printable(name, 1000) + ": ";
  return text.compare(0, prefix.size(), prefix) == 0 ? text.substr(prefix.size()) : text;
}

// ---- archives ----

// Why a name of a member is no plain one; empty when it is.
std::string problem_of_name(std::string_view name) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(name.begin(), name.end(), is_control)) return "its name holds control characters";
  if (name.front() == '/') return "its name is an absolute path";
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    if (name.substr(at, end - at) == "..") return "its name leads out of the folder";
    at = end + 1;
  }
  return {};
}

class ArchiveOpener {
 public:
  ArchiveOpener(WalkedArchive& archive, const WalkOptions& options) : archive_(archive), options_(options) {}

  void run() {
    const ListedArchive& listed = *archive_.listed;
    archive_.lost = listed.rows.size();
    if (!listed.problem.empty()) return lost(listed.problem);
    try {
      archive_.file = std::make_unique<detail::ArchiveFile>(listed.path);
      const auto read_at = [this](uint64_t offset, void* target, size_t count) {
        return archive_.file->read_at(offset, target, count);
      };
      archive_.index = TarIndex::build(read_at, archive_.file->size(), listed.name);
    } catch (const DataError& error) {
      return lost(error.what());
    }
    if (archive_.index->members().empty()) {
      fault("archive", "", "the archive holds no file");
      if (!listed.rows.empty()) fault("member", "", concat(listed.rows.size(), " rows name members of it"));
    } else {
      archive_.lost = 0;
      add_rows();
      if (listed.web) add_web();
    }
    check_index();
    if (options_.whole) read_others();
  }

 private:
  void fault(const char* kind, std::string_view file, std::string what) {
    what = without_prefix(without_prefix(what, archive_.listed->name), archive_.listed->path.string());
    archive_.faults.push_back({kind, archive_.listed->name, std::string(file), std::move(what)});
  }

  void lost(const std::string& why) {
    archive_.file.reset();
    fault("archive", "", archive_.lost == 0 ? why : concat(why, "; ", archive_.lost, " rows name members of it"));
  }

  void add_rows() {
    std::unordered_set<std::string_view> seen;
    for (const ListedRow& row : archive_.listed->rows) {
      WalkedSample sample;
      sample.file = archive_.listed->file(row);
      sample.caption = archive_.listed->caption(row);
      sample.image = archive_.index->find(sample.file);
      sample.json = archive_.index->find(std::string(web_key(sample.file)) + ".json");
      if (!seen.insert(sample.file).second) sample.duplicate = "lists name it twice";
      archive_.samples.push_back(sample);
    }
  }

  void add_web() {
    for (const WebParts& part : web_parts(*archive_.index)) {
      if (part.image == nullptr) {
        if (part.text != nullptr) fault("member", part.text->name, "the caption has no picture");
        continue;
      }
      WalkedSample sample;
      sample.file = part.image->name;
      sample.image = part.image;
      sample.json = part.json;
      if (part.images > 1) sample.duplicate = keep(concat("its key has ", part.images, " pictures"));
      WebSample read;
      try {
        sample.caption_problem = keep(read_web_sample(part, *archive_.file, {}, read));
      } catch (const DataError& error) {
        sample.caption_problem = keep(error.what());
      }
      sample.caption = keep(std::move(read.caption));
      archive_.samples.push_back(sample);
    }
  }

  std::string_view keep(std::string text) { return archive_.texts.emplace_back(std::move(text)); }

  void check_index() {
    const TarIndex& index = *archive_.index;
    if (!index.problem().empty()) {
      fault("damage", "", index.problem());
    } else if (!index.ended()) {
      fault("end_mark", "", "the archive has no end mark: it may have been cut");
    } else if (options_.whole) {
      check_rest(index.end());
    }
    if (index.replaced() > 0) fault("replaced", "", concat(index.replaced(), " members are replaced by later ones"));
    if (const uint64_t odd = index.skipped() - index.folders(); odd > 0) {
      fault("skipped", "", concat(odd, " members are no regular files"));
    }
    for (const TarMember& member : index.members()) {
      if (std::string problem = problem_of_name(member.name); !problem.empty()) {
        fault("name", member.name, std::move(problem));
      }
    }
  }

  // Nothing but zeros may follow the end mark.
  void check_rest(uint64_t offset) {
    std::vector<char> block(kBlockBytes);
    while (offset < archive_.file->size()) {
      const auto count = static_cast<size_t>(std::min<uint64_t>(block.size(), archive_.file->size() - offset));
      if (!read(offset, block.data(), count, "")) return;
      const auto end = block.begin() + static_cast<std::ptrdiff_t>(count);
      const auto found = std::find_if(block.begin(), end, [](char c) { return c != 0; });
      if (found != end) {
        return fault("rest", "",
                     concat("there are data behind the end mark, at byte ",
                            offset + static_cast<uint64_t>(found - block.begin()),
                            ": are two archives joined here? What lies there is not used"));
      }
      offset += count;
    }
  }

  // Members that no sample shows are read here, the others when their picture is looked at.
  void read_others() {
    std::unordered_set<const TarMember*> pictures;
    for (const WalkedSample& sample : archive_.samples) pictures.insert(sample.image);
    std::vector<char> block;
    for (const TarMember& member : archive_.index->members()) {
      if (pictures.count(&member) != 0) continue;
      block.resize(kBlockBytes);
      for (uint64_t at = 0; at < member.size; at += block.size()) {
        const auto count = static_cast<size_t>(std::min<uint64_t>(block.size(), member.size - at));
        if (!read(member.offset + at, block.data(), count, member.name)) break;
      }
      if (options_.unlisted && !archive_.listed->web && is_web_image(member.name)) {
        fault("unlisted", member.name, "no list names it");
      }
    }
  }

  bool read(uint64_t offset, char* target, size_t count, std::string_view member) {
    std::string problem = "the file has become shorter";
    try {
      if (archive_.file->read_at(offset, target, count)) return true;
    } catch (const DataError& error) {
      problem = error.what();
    }
    fault("read", member, problem);
    return false;
  }

  WalkedArchive& archive_;
  const WalkOptions& options_;
};

// ---- samples ----

class SampleExaminer {
 public:
  SampleExaminer(const WalkedArchive& archive, size_t i, const WalkOptions& options, SampleFacts& facts,
                 std::vector<Fault>& faults)
      : archive_(archive), sample_(archive.samples[i]), options_(options), facts_(facts), faults_(faults) {}

  void run() {
    facts_.key_hash = hash_of(sha256_hex(web_key(sample_.file)));
    if (!sample_.duplicate.empty()) fault("duplicate", std::string(sample_.duplicate));
    look_at_caption();
    if (sample_.image == nullptr) return fault("member", "the archive does not contain this file");
    facts_.image_bytes = sample_.image->size;
    if (sample_.image->size > kMostMemberBytes) {
      return fault("picture", concat("the file is larger than the ", kMostMemberBytes, " bytes that are read"));
    }
    try {
      options_.whole ? look_at_pixels() : look_at_header();
    } catch (const DataError& error) {  // of the archive: the disk gives no bytes
      fault("read", error.what());
    }
  }

 private:
  void fault(const char* kind, std::string what) {
    faults_.push_back({kind, archive_.listed->name, std::string(sample_.file), std::move(what)});
    facts_.sound = false;
  }

  void look_at_caption() {
    const std::string_view text = sample_.caption;
    facts_.caption_bytes = static_cast<uint32_t>(text.size());
    facts_.caption_hash = hash_of(sha256_hex(text));
    bool sound = true;
    for (size_t at = 0; at < text.size(); ++facts_.caption_points) {
      const size_t length = utf8_length(text.substr(at));
      sound = sound && length > 0;
      at += std::max<size_t>(length, 1);
    }
    facts_.blank = text.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
    if (!sample_.caption_problem.empty()) return fault("caption", concat("there is none: ", sample_.caption_problem));
    if (!sound) fault("caption", "it is not UTF-8");
    if (facts_.blank) fault("caption", "it is empty");
    if (options_.tokenizer != nullptr) count_tokens(text);
  }

  void count_tokens(std::string_view text) {
    TokenLimits limits;
    limits.append_eos = false;
    if (text.size() > Tokenizer::kMaxCaptionBytes) return fault("caption", concat("it has ", text.size(), " bytes"));
    const auto ids = options_.tokenizer->encode_training(text, limits).ids;
    const auto says_nothing = [this](int32_t id) { return options_.silent.count(id) != 0; };
    if (!facts_.blank && std::all_of(ids.begin(), ids.end(), says_nothing)) {
      fault("tokens", "the vocabulary knows nothing of this caption");
    }
    facts_.tokens = static_cast<int32_t>(ids.size() + 1);  // and the end token
  }

  bool read(std::vector<uint8_t>& bytes, uint64_t count) {
    bytes.resize(static_cast<size_t>(count));
    if (archive_.file->read_at(sample_.image->offset, bytes.data(), bytes.size())) return true;
    fault("read", "the archive has become shorter");
    return false;
  }

  void look_at_header() {
    std::vector<uint8_t> bytes;
    std::optional<ImageSize> size;
    for (const uint64_t count : {std::min<uint64_t>(kHeaderBytes, sample_.image->size), sample_.image->size}) {
      if (count == bytes.size() && count > 0) break;
      if (!read(bytes, count)) return;
      size = image_size(bytes.data(), bytes.size());
      if (size) break;
    }
    facts_.format = image_format(bytes.data(), bytes.size());
    if (!size) return fault("picture", "its header can't be read");
    take_size(size->width, size->height);
  }

  void take_size(int64_t width, int64_t height) {
    facts_.width = static_cast<int32_t>(width);
    facts_.height = static_cast<int32_t>(height);
  }

  void look_at_pixels() {
    std::vector<uint8_t> bytes;
    if (!read(bytes, sample_.image->size)) return;
    facts_.format = image_format(bytes.data(), bytes.size());
    try {
      const ReducedImage image = decode_for_side(bytes.data(), bytes.size(), sample_.file, /*side=*/1);
      take_size(image.full_width, image.full_height);
    } catch (const DataError& error) {
      fault("picture", without_prefix(error.what(), sample_.file));
    }
    if (sample_.json != nullptr) check_digest(bytes);
  }

  void check_digest(const std::vector<uint8_t>& bytes) {
    if (sample_.json->size > kMostJsonBytes) {
      return fault("json", concat("its JSON file has ", sample_.json->size, " bytes"));
    }
    std::string text(static_cast<size_t>(sample_.json->size), '\0');
    if (!archive_.file->read_at(sample_.json->offset, text.data(), text.size())) {
      return fault("read", "the archive has become shorter");
    }
    const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return fault("json", "its JSON file holds no object");
    const char* name = "file_sha256";
    if (!json.contains(name)) name = json.contains("original_width") ? "" : "sha256";
    const auto stated = json.find(name);
    if (stated == json.end() || stated->is_null()) return;
    const std::string digest = sha256_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    if (!stated->is_string() || stated->get_ref<const std::string&>() != digest) {
      fault("digest",
            concat("its SHA-256 is ", digest, ", and its JSON file says ", name, ' ',
                   stated->is_string() ? printable(stated->get_ref<const std::string&>(), 80) : "what is no text"));
    }
  }

  const WalkedArchive& archive_;
  const WalkedSample& sample_;
  const WalkOptions& options_;
  SampleFacts& facts_;
  std::vector<Fault>& faults_;
};

}  // namespace

std::unordered_set<int32_t> silent_ids(const Tokenizer& tokenizer) {
  TokenLimits limits;
  limits.append_eos = false;
  const auto ids = tokenizer.encode_training("", limits).ids;
  std::unordered_set<int32_t> silent(ids.begin(), ids.end());
  for (const char* space : {" ", "\xE2\x96\x81"}) silent.insert(tokenizer.id_of(space));
  silent.insert(tokenizer.bos_id());  // the unknown token
  return silent;
}

void open_archive(WalkedArchive& archive, const WalkOptions& options) { ArchiveOpener(archive, options).run(); }

void examine_sample(const WalkedArchive& archive, size_t i, const WalkOptions& options, SampleFacts& facts,
                    std::vector<Fault>& faults) {
  SampleExaminer(archive, i, options, facts, faults).run();
}

}  // namespace mdm::ingest
