// Shards, their lists and the vocabulary; the data set of shapes.
#include "mdm/demo/dataset.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/utf8.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"
#include "mdm/demo/shapes.h"
#include "mdm/media/png.h"

namespace mdm {
namespace {

// Validation scenes are far behind all training scenes of the same sequence.
constexpr uint64_t kFirstValidationScene = uint64_t{1} << 40;

std::string numbered(const std::string& name, size_t number, const char* suffix) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%05zu", number);
  return name + digits + suffix;
}

std::string tsv_record(const std::vector<std::string>& fields) {
  std::string record;
  for (size_t i = 0; i < fields.size(); ++i) {
    if (i > 0) record += '\t';
    record += tsv_field(fields[i]);
  }
  return record + '\n';
}

// A line of a vocabulary: spaces are written as U+2581.
std::string vocabulary_line(const std::string& piece, int score) {
  std::string line;
  for (const char c : piece) {
    if (c == ' ') {
      line += "\xE2\x96\x81";
    } else {
      line += c;
    }
  }
  return concat(line, '\t', score, '\n');
}

}  // namespace

struct ShardWriter::Shard {
  Shard(const std::filesystem::path& folder, const std::string& stem)
      : tar_name(stem + ".tar"), tsv_name(stem + ".tsv"), tar(folder / tar_name) {}

  std::string tar_name, tsv_name;
  TarWriter tar;
  std::string records;
  size_t samples = 0;
};

ShardWriter::ShardWriter(std::filesystem::path index, std::string name, std::vector<std::string> extra_columns,
                         size_t shard_size)
    : index_(std::move(index)),
      name_(std::move(name)),
      extra_columns_(std::move(extra_columns)),
      shard_size_(std::max<size_t>(1, shard_size)) {
  make_writable_folder(index_.parent_path());
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::open_shard() {
  shard_ = std::make_unique<Shard>(index_.parent_path(), numbered(name_ + "-", shard_files_.size(), ""));
  std::vector<std::string> columns = {"tar", "file", "caption"};
  columns.insert(columns.end(), extra_columns_.begin(), extra_columns_.end());
  shard_->records = tsv_record(columns);
}

void ShardWriter::add(const Image& image, const std::string& caption, const std::vector<std::string>& extra) {
  if (extra.size() != extra_columns_.size()) {
    fail<Error>("a sample has ", extra.size(), " extra values for ", extra_columns_.size(), " columns");
  }
  if (!shard_) open_shard();
  const std::string key = numbered("", shard_->samples, "");
  const std::string file = key + ".png";
  shard_->tar.add(file, encode_png(image));
  shard_->tar.add(key + ".txt", caption);
  std::vector<std::string> fields = {shard_->tar_name, file, caption};
  fields.insert(fields.end(), extra.begin(), extra.end());
  shard_->records += tsv_record(fields);
  ++count_;
  if (++shard_->samples == shard_size_) close_shard();
}

void ShardWriter::close_shard() {
  shard_->tar.finish();
  write_file(index_.parent_path() / shard_->tsv_name, shard_->records);
  shard_files_.push_back(shard_->tsv_name);
  shard_.reset();
}

void ShardWriter::finish() {
  if (count_ == 0) fail<Error>(printable(index_.string()), ": there is no sample to write");
  if (shard_) close_shard();
  std::string records = tsv_record({"filename"});
  for (const std::string& file : shard_files_) records += tsv_record({file});
  write_file(index_, records);
}

std::string caption_vocabulary(const std::vector<std::string>& captions, size_t entries) {
  constexpr int kWordScore = -1, kCharacterScore = -10;
  // A file of lines can't hold control characters as pieces.
  const auto fits = [](const std::string& piece) {
    return std::none_of(piece.begin(), piece.end(),
                        [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7F; });
  };
  std::map<std::string, size_t> counts;
  std::set<std::string> characters;
  for (char c = '!'; c <= '~'; ++c) characters.insert(std::string(1, c));
  for (const std::string& caption : captions) {
    for (size_t at = 0; at < caption.size();) {
      const size_t end = std::min(caption.find(' ', at), caption.size());
      const std::string word = " " + caption.substr(at, end - at);
      if (end > at && fits(word)) ++counts[word];
      at = end + 1;
    }
    for (size_t at = 0; at < caption.size();) {
      const size_t length = std::max<size_t>(1, utf8_length(std::string_view(caption).substr(at)));
      const std::string character = caption.substr(at, length);
      if (character != " " && fits(character)) characters.insert(character);
      at += length;
    }
  }
  std::string text = vocabulary_line("<pad>", 0) + vocabulary_line("</s>", 0) + vocabulary_line("<unk>", 0);
  text += vocabulary_line(" ", kCharacterScore);
  for (const std::string& character : characters) text += vocabulary_line(character, kCharacterScore);
  std::vector<std::string> words;
  for (const auto& [word, count] : counts) words.push_back(word);
  constexpr size_t kSpecial = 4;
  const size_t room = entries - std::min(entries, kSpecial + characters.size());
  if (words.size() > room) {
    std::stable_sort(words.begin(), words.end(),
                     [&](const std::string& a, const std::string& b) { return counts[a] > counts[b]; });
    words.resize(room);
    std::sort(words.begin(), words.end());
  }
  for (const std::string& word : words) text += vocabulary_line(word, kWordScore);
  return text;
}

WrittenDataset write_shape_dataset(const ShapeDataset& settings, const CountProgress& progress) {
  WrittenDataset written;
  std::set<std::string> captions;
  const size_t total = settings.count + settings.validation_count;
  size_t done = 0;
  const auto write = [&](const char* index, const char* part, uint64_t first, uint64_t count) {
    ShardWriter shards(settings.folder / index, concat("shapes", settings.side, "-", part), {"objects"},
                       settings.shard_size);
    for (uint64_t i = 0; i < count; ++i) {
      const Scene scene = make_scene(settings.seed, first + i, SceneSplit::kSeen, settings.shares);
      const std::string caption = caption_of(scene.text);
      captions.insert(caption);
      shards.add(render_scene(scene, settings.side), caption, {concat(scene.text.objects.size())});
      if (progress) progress(++done, total);
    }
    shards.finish();
    return settings.folder / index;
  };
  written.train_list = write("train.tsv", "train", 0, settings.count);
  written.train_samples = settings.count;
  if (settings.validation_count > 0) {
    written.validation_list = write("validation.tsv", "validation", kFirstValidationScene, settings.validation_count);
    written.validation_samples = settings.validation_count;
  }
  // Every word of the language, whether or not this many scenes have shown it.
  for (int number = 0; number < kObjectKinds; ++number) {
    captions.insert(caption_of({{ObjectKind::from_number(number)}, Relation::kNone}));
  }
  for (const Relation relation : {Relation::kLeftOf, Relation::kRightOf, Relation::kAbove, Relation::kBelow}) {
    captions.insert(caption_of({{ObjectKind::from_number(0), ObjectKind::from_number(1)}, relation}));
  }
  written.vocabulary = settings.folder / "captions.vocab";
  write_file(written.vocabulary, caption_vocabulary({captions.begin(), captions.end()}));
  return written;
}

}  // namespace mdm
