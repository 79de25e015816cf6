// Unicode's list of emoji, and the data set of their pictures.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/tsv.h"
#include "mdm/demo/dataset.h"
#include "mdm/demo/emoji.h"
#include "mdm/media/resize.h"

namespace mdm {
namespace {

constexpr size_t kMaxListBytes = size_t{16} << 20;
constexpr size_t kMaxCodePoints = 32;
constexpr uint32_t kVariationSelector = 0xFE0F;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

// Takes the part before `mark` off the front of `text`, and the mark.
std::string_view part_before(std::string_view& text, char mark) {
  const size_t end = std::min(text.find(mark), text.size());
  const std::string_view part = trimmed(text.substr(0, end));
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

// Reads the lines of the file one by one.
class EmojiListReader {
 public:
  explicit EmojiListReader(const std::filesystem::path& file) : where_(printable(file.string(), 1000)) {
    const std::string text = read_text_file(file, kMaxListBytes);
    for (std::string_view rest(text); !rest.empty();) {
      ++line_number_;
      read_line(part_before(rest, '\n'));
    }
    if (entries_.empty()) fail<DataError>(where_, ": holds no fully-qualified emoji; is it emoji-test.txt?");
  }

  std::vector<EmojiEntry> take() { return std::move(entries_); }

 private:
  void read_line(std::string_view line) {
    if (line.empty()) return;
    if (line.front() == '#') {
      take_heading(line, "# group:", group_);
      take_heading(line, "# subgroup:", subgroup_);
      return;
    }
    // 1F636 200D 1F32B FE0F ; fully-qualified # 😶‍🌫️ E13.1 face in clouds
    const std::string_view code_points = part_before(line, ';');
    const std::string_view status = part_before(line, '#');
    if (status != "fully-qualified") return;
    line = trimmed(line);
    part_before(line, ' ');  // the emoji itself
    const std::string_view version = part_before(line, ' ');
    const std::string_view name = trimmed(line);
    if (version.empty() || version.front() != 'E' || name.empty()) {
      fail<DataError>(where_, ":", line_number_, ": expected '# EMOJI E1.0 name' at the end of the line");
    }
    EmojiEntry entry;
    entry.sequence = sequence(code_points);
    entry.name = name;
    entry.group = group_;
    entry.subgroup = subgroup_;
    entry.skin_tone = std::any_of(entry.sequence.begin(), entry.sequence.end(),
                                  [](uint32_t code) { return code >= 0x1F3FB && code <= 0x1F3FF; });
    entries_.push_back(std::move(entry));
  }

  static void take_heading(std::string_view line, std::string_view mark, std::string& heading) {
    if (line.substr(0, mark.size()) == mark) heading = trimmed(line.substr(mark.size()));
  }

  std::vector<uint32_t> sequence(std::string_view code_points) const {
    std::vector<uint32_t> codes;
    while (!code_points.empty()) {
      const std::string_view digits = part_before(code_points, ' ');
      uint32_t code = 0;
      const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
      if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() ||
          code > 0x10FFFF || codes.size() == kMaxCodePoints) {
        fail<DataError>(where_, ":", line_number_, ": '", printable(digits, 40),
                        "' is no code point, or there are more than ", kMaxCodePoints);
      }
      if (code != kVariationSelector) codes.push_back(code);
    }
    if (codes.empty()) fail<DataError>(where_, ":", line_number_, ": no code point before ';'");
    return codes;
  }

  std::string where_;
  size_t line_number_ = 0;
  std::string group_, subgroup_;
  std::vector<EmojiEntry> entries_;
};

// Sum of squared differences; pictures of one size.
uint64_t squared_distance(const Image& a, const Image& b) {
  uint64_t sum = 0;
  for (size_t i = 0; i < a.pixels.size(); ++i) {
    const int difference = static_cast<int>(a.pixels[i]) - static_cast<int>(b.pixels[i]);
    sum += static_cast<uint64_t>(difference * difference);
  }
  return sum;
}

}  // namespace

std::vector<EmojiEntry> read_emoji_list(const std::filesystem::path& file) { return EmojiListReader(file).take(); }

std::string emoji_caption(const EmojiEntry& entry) {
  std::string caption = entry.name;
  for (size_t i = 0; i < caption.size(); ++i) {
    const auto byte = static_cast<uint8_t>(caption[i]);
    const auto before = i > 0 ? static_cast<uint8_t>(caption[i - 1]) : uint8_t{0};
    // In UTF-8 the capitals of Latin-1 are C3 80 to C3 9E (but for the multiplication sign, C3 97).
    const bool latin = before == 0xC3 && byte >= 0x80 && byte <= 0x9E && byte != 0x97;
    if ((byte >= 'A' && byte <= 'Z') || latin) caption[i] = static_cast<char>(byte + 0x20);
  }
  return caption;
}

Image square_picture(const Image& image, int side, double margin) {
  const Image picture = to_rgb(image, AlphaRule::kOnWhite);
  const int longer = std::max(picture.width, picture.height);
  const int full = longer + 2 * static_cast<int>(std::lround(margin * longer));
  Image square(full, full, 3, 255);
  const int left = (full - picture.width) / 2, top = (full - picture.height) / 2;
  for (int y = 0; y < picture.height; ++y) {
    std::copy_n(picture.row(y), picture.row_bytes(), square.row(top + y) + 3 * static_cast<ptrdiff_t>(left));
  }
  return resize(square, side, side);
}

EmojiPictures::EmojiPictures(const std::filesystem::path& list_file, const std::filesystem::path& font_file, int side,
                             bool skin_tones) {
  const EmojiFont font(font_file);
  for (EmojiEntry& entry : read_emoji_list(list_file)) {
    if (entry.skin_tone && !skin_tones) continue;
    const auto bitmap = font.draw(entry.sequence);
    if (!bitmap) {
      ++without_bitmap_;
      continue;
    }
    pictures_.push_back(square_picture(*bitmap, side));
    captions_.push_back(emoji_caption(entry));
    entries_.push_back(std::move(entry));
  }
  if (pictures_.empty()) fail<DataError>(printable(font_file.string(), 1000), ": has none of the listed emoji");
}

EmojiPictures::Nearest EmojiPictures::nearest(const Image& image, const std::string& caption) const {
  const int side = pictures_[0].width;
  Image picture = to_rgb(image, AlphaRule::kOnWhite);
  if (picture.width != side || picture.height != side) picture = resize(picture, side, side);
  Nearest nearest;
  uint64_t least = UINT64_MAX, named = UINT64_MAX;
  for (size_t i = 0; i < pictures_.size(); ++i) {
    const uint64_t distance = squared_distance(pictures_[i], picture);
    if (captions_[i] == caption) named = std::min(named, distance);
    if (distance >= least) continue;
    least = distance;
    nearest.index = i;
  }
  nearest.is_named = named == least;
  nearest.is_known = named != UINT64_MAX;
  return nearest;
}

WrittenDataset write_emoji_dataset(const EmojiDataset& settings, const CountProgress& progress) {
  const EmojiPictures emoji(settings.list_file, settings.font_file, settings.side, settings.skin_tones);
  WrittenDataset written;
  written.without_bitmap = emoji.without_bitmap();
  written.train_list = settings.folder / "train.tsv";
  written.vocabulary = settings.folder / "captions.vocab";
  const std::string name = concat("emoji", settings.side, "-");
  const std::vector<std::string> columns = {"group", "subgroup"};
  ShardWriter train(written.train_list, name + "train", columns, settings.shard_size);
  std::unique_ptr<ShardWriter> validation;
  if (settings.validation_every > 0) {
    written.validation_list = settings.folder / "validation.tsv";
    validation =
        std::make_unique<ShardWriter>(written.validation_list, name + "validation", columns, settings.shard_size);
  }
  for (size_t i = 0; i < emoji.captions().size(); ++i) {
    const bool kept_out = validation && (i + 1) % settings.validation_every == 0;
    ShardWriter& shards = kept_out ? *validation : train;
    const EmojiEntry& entry = emoji.entries()[i];
    shards.add(emoji.pictures()[i], emoji.captions()[i], {entry.group, entry.subgroup});
    if (progress) progress(i + 1, emoji.captions().size());
  }
  train.finish();
  if (validation) validation->finish();
  written.train_samples = train.size();
  written.validation_samples = validation ? validation->size() : 0;
  write_file(written.vocabulary, caption_vocabulary(emoji.captions()));
  return written;
}

}  // namespace mdm
