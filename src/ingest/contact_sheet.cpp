#include "ingest/contact_sheet.h"

#include <algorithm>
#include <array>

#include "data/dataset_rows.h"
#include "mdm/core/error.h"
#include "mdm/core/random.h"
#include "mdm/media/decode.h"
#include "mdm/media/grid.h"
#include "mdm/media/png.h"
#include "mdm/media/resize.h"
#include "mdm/media/text.h"

namespace mdm::ingest {
namespace {

constexpr int kSide = 160;  // of the square that a picture stands in, in pixels
constexpr int kCaptionLines = 4;
constexpr int kMargin = 4;
constexpr int kMostSamples = 1024;
constexpr size_t kMostCaption = 4096;  // bytes that are kept of one
constexpr uint8_t kPaper = 250;        // around pictures
constexpr std::array<uint8_t, 3> kInk = {20, 20, 20};
constexpr std::array<uint8_t, 3> kRed = {200, 30, 30};

uint64_t lot_of(uint64_t seed, size_t archive, size_t sample) {
  RandomAddress address;
  address.seed = seed;
  address.step = archive;
  address.sample = sample;
  address.stream = RandomStream::kShuffle;
  uint32_t bits[2];
  random_bits(address, 0, bits, 2);
  return uint64_t{bits[0]} << 32 | bits[1];
}

void paste(const Image& picture, Image& cell, int left, int top) {
  for (int y = 0; y < picture.height; ++y) {
    std::copy_n(picture.row(y), picture.row_bytes(), cell.row(top + y) + 3 * left);
  }
}

// A crossed frame in the picture's place.
void mark_broken(Image& cell) {
  for (int i = 0; i < kSide; ++i) {
    for (const auto& [x, y] : {std::pair{i, 0}, {i, kSide - 1}, {0, i}, {kSide - 1, i}, {i, i}, {kSide - 1 - i, i}}) {
      std::copy(kRed.begin(), kRed.end(), cell.row(kMargin + y) + 3 * (kMargin + x));
    }
  }
}

Image shrunk(const Image& picture) {
  const double scale = std::min(1.0, static_cast<double>(kSide) / std::max(picture.width, picture.height));
  const auto side = [scale](int pixels) { return std::max(1, static_cast<int>(pixels * scale + 0.5)); };
  const Image rgb = to_rgb(picture, AlphaRule::kOnWhite);
  return scale == 1 ? rgb : resize(rgb, side(picture.width), side(picture.height));
}

}  // namespace

ContactSheet::ContactSheet(const ContactSheetSettings& settings) : settings_(settings) {
  if (!settings.file.empty() && (settings.samples < 1 || settings.samples > kMostSamples)) {
    fail<ConfigError>("a contact sheet of ", settings.samples, " samples; 1 to ", kMostSamples, " are possible");
  }
}

void ContactSheet::offer(const WalkedArchive& archive) {
  if (settings_.file.empty()) return;
  for (size_t i = 0; i < archive.samples.size(); ++i) {
    const uint64_t lot = lot_of(settings_.seed, archive.number, i);
    const bool full = chosen_.size() == static_cast<size_t>(settings_.samples);
    if (full && lot >= chosen_.top().lot) continue;
    if (full) chosen_.pop();
    const WalkedSample& sample = archive.samples[i];
    Choice choice;
    choice.lot = lot;
    choice.archive = archive.number;
    choice.sample = i;
    choice.path = archive.listed->path;
    if (sample.image != nullptr && sample.image->size <= kMostMemberBytes) {
      choice.offset = sample.image->offset;
      choice.size = sample.image->size;
    }
    choice.file = sample.file;
    choice.caption = sample.caption.substr(0, kMostCaption);
    chosen_.push(std::move(choice));
  }
}

Image ContactSheet::cell_of(const Choice& choice) {
  constexpr int kWidth = kSide + 2 * kMargin;
  Image cell(kWidth, kSide + 3 * kMargin + kCaptionLines * kTextLineHeight, 3, kPaper);
  try {
    std::vector<uint8_t> bytes(choice.size);
    const detail::ArchiveFile file(choice.path);
    if (!file.read_at(choice.offset, bytes.data(), bytes.size())) fail<DataError>("the archive has become shorter");
    const Image picture = shrunk(decode_image(bytes.data(), bytes.size(), choice.file));
    paste(picture, cell, kMargin + (kSide - picture.width) / 2, kMargin + (kSide - picture.height) / 2);
  } catch (const DataError&) {  // what is wrong stands in the report
    mark_broken(cell);
  }
  int top = kSide + 2 * kMargin;
  for (const std::string& line : wrap_text(choice.caption, kSide, kCaptionLines)) {
    draw_text(cell, kMargin, top, line, kInk);
    top += kTextLineHeight;
  }
  return cell;
}

void ContactSheet::write() {
  std::vector<Choice> choices;
  for (; !chosen_.empty(); chosen_.pop()) choices.push_back(chosen_.top());
  if (choices.empty()) return;
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
    return std::pair(a.archive, a.sample) < std::pair(b.archive, b.sample);
  });
  std::vector<Image> cells;
  for (const Choice& choice : choices) cells.push_back(cell_of(choice));
  GridOptions options;
  options.background = 200;
  write_png(settings_.file, make_grid(cells, options));
}

}  // namespace mdm::ingest
