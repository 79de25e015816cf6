// Golden cases of the data reader: decoded.json (images alone), resized.json (resizing alone) and runs/NAME.json
// (what the reference's reader gives for a list in ../data), each beside its .safetensors.
//
// Out of scope, as read_training_image documents: files on which the reference hangs, GIF, formats that it can't read
// and we can, texts of errors. That the reference reads everything num_epochs + 1 times is modelled here.
#include <ATen/ATen.h>

#include <map>

#include "golden_runner/runner.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/image_reader.h"
#include "mdm/data/loader.h"
#include "mdm/media/decode.h"
#include "mdm/media/resize.h"
#include "mdm/text/mdm_tokenizer.h"

namespace mdm::golden {
namespace {

using ReaderJson = nlohmann::json;

constexpr double kShareOffByOne = 0.0005;  // of resized values

at::Tensor image_tensor(const Image& image) {
  return at::from_blob(const_cast<uint8_t*>(image.pixels.data()), {image.height, image.width, image.channels},
                       at::TensorOptions().dtype(at::kByte))
      .clone();
}

// Resized values may be off by one, and few of them; the share is taken over the whole case.
class ResizedValues {
 public:
  void compare(Report& report, const std::string& what, const at::Tensor& actual, const at::Tensor& expected) {
    report.compare(what, actual.to(at::kFloat), expected.to(at::kFloat), 1, 0);
    if (actual.sizes() != expected.sizes()) return;
    off_ += actual.ne(expected).sum().item<int64_t>();
    all_ += expected.numel();
  }
  void finish(Report& report) const {
    const double share = all_ == 0 ? 0 : static_cast<double>(off_) / static_cast<double>(all_);
    report.compare("share of resized values that are off by one", share, 0, kShareOffByOne, 0);
  }

 private:
  int64_t off_ = 0, all_ = 0;
};

// The working directory that names in lists are relative to.
class WorkingFolder {
 public:
  explicit WorkingFolder(const std::filesystem::path& folder) : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(folder);
  }
  ~WorkingFolder() {
    std::error_code ignored;
    std::filesystem::current_path(before_, ignored);
  }
  WorkingFolder(const WorkingFolder&) = delete;
  WorkingFolder& operator=(const WorkingFolder&) = delete;

 private:
  std::filesystem::path before_;
};

TensorFile tensors_beside(const std::filesystem::path& json) {
  auto file = json;
  return TensorFile::open(file.replace_extension(".safetensors"));
}

bool out_of_decode_scope(const std::string& bytes, const ReaderJson& expected) {
  if (bytes.compare(0, 4, "GIF8") == 0) return true;
  if (!expected.contains("error")) return false;
  const auto error = expected["error"].get<std::string>();
  const auto format = image_format(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  return error.compare(0, 4, "hang") != 0 && format == ImageFormat::kWebp;
}

// ---- runs ----

struct ReaderRun {
  ReaderJson json;
  ReaderConfig config;
  std::filesystem::path folder;  // of the list
  std::shared_ptr<const Dataset> dataset;
  std::unique_ptr<MdmTokenizer> tokenizer;
  std::vector<size_t> rows;  // in the order in which the reference gives them
};

ReaderConfig reader_config_of(const ReaderJson& fields) {
  ReaderConfig config;
  config.compat = ReaderCompat::kMlx;
  const std::map<std::string, int64_t*> numbers = {
      {"smaller_side_size", &config.smaller_side_size},     {"max_caption_length", &config.max_caption_length},
      {"max_token_length", &config.max_token_length},       {"image_size", &config.image_size},
      {"num_kept_files", &config.num_kept_files},           {"num_readers", &config.num_readers},
      {"shuffle_buffer_size", &config.shuffle_buffer_size}, {"reader_buffer_size", &config.reader_buffer_size}};
  const std::map<std::string, bool*> switches = {{"random_crop", &config.random_crop},
                                                 {"prepad_caption_with_space", &config.prepad_caption_with_space},
                                                 {"use_tokenizer_scores", &config.use_tokenizer_scores},
                                                 {"prepad_bos", &config.prepad_bos},
                                                 {"append_eos", &config.append_eos},
                                                 {"pad_to_max_length", &config.pad_to_max_length}};
  for (const auto& [name, value] : fields.items()) {
    if (const auto number = numbers.find(name); number != numbers.end()) {
      *number->second = value;
    } else if (const auto flag = switches.find(name); flag != switches.end()) {
      *flag->second = value;
    } else if (name == "padding_token") {
      config.padding_token = value;
    } else if (name != "endpoint_url" && name != "bucket") {
      fail<DataError>("reader_config has the field ", name, ", which is not known here");
    }
  }
  return config;
}

// Every pass of the list, of it each n-th row, of these the ones whose caption is kept.
std::vector<size_t> reader_row_order(const ReaderRun& run, size_t wanted) {
  const int64_t epochs = run.json["num_epochs"];
  const auto& partition = run.json["partition"];
  const uint64_t part = partition.is_null() ? 0 : partition[0].get<uint64_t>();
  const uint64_t parts = partition.is_null() ? 1 : partition[1].get<uint64_t>();
  const uint64_t size = run.dataset->size();
  std::vector<char> kept(size, 1);
  if (run.tokenizer) {
    for (size_t i = 0; i < size; ++i) {
      kept[i] = run.tokenizer->encode_training(run.dataset->caption(i), token_limits(run.config)).kept ? 1 : 0;
    }
  }
  std::vector<size_t> rows;
  // At least one row is kept in every `size * parts` when any is.
  const uint64_t end = epochs > 0 ? size * static_cast<uint64_t>(epochs + 1) : (wanted + 1) * size * parts;
  for (uint64_t i = part; i < end && rows.size() < wanted; i += parts) {
    if (kept[i % size] != 0) rows.push_back(i % size);
  }
  return rows;
}

TrainingImage reader_image(const ReaderRun& run, size_t row) {
  std::vector<uint8_t> bytes;
  run.dataset->read_image(row, bytes);
  return read_training_image(bytes.data(), bytes.size(), run.dataset->where(row), run.config);
}

// Arrays of different shapes one above the other, filled with zeros.
at::Tensor stack_padded(const std::vector<at::Tensor>& rows) {
  std::vector<int64_t> shape = {static_cast<int64_t>(rows.size())};
  for (int64_t d = 0; d < rows[0].dim(); ++d) {
    int64_t largest = 0;
    for (const auto& row : rows) largest = std::max(largest, row.size(d));
    shape.push_back(largest);
  }
  at::Tensor stacked = at::zeros(shape, rows[0].options());
  for (size_t i = 0; i < rows.size(); ++i) {
    at::Tensor target = stacked.select(0, static_cast<int64_t>(i));
    for (int64_t d = 0; d < rows[i].dim(); ++d) target = target.narrow(d, 0, rows[i].size(d));
    target.copy_(rows[i]);
  }
  return stacked;
}

std::string padded_caption(const ReaderRun& run, size_t row) {
  const std::string caption(run.dataset->caption(row));
  return run.tokenizer ? " " + caption + " " : caption;
}

void check_reader_text(const ReaderRun& run, const std::vector<size_t>& rows, const std::string& prefix,
                       const TensorFile& io, Report& report) {
  std::vector<at::Tensor> captions;
  std::vector<std::vector<int32_t>> ids;
  for (const size_t row : rows) {
    std::string text = padded_caption(run, row);
    captions.push_back(at::from_blob(text.data(), {static_cast<int64_t>(text.size())}, at::kChar).clone());
    if (run.tokenizer) {
      ids.push_back(run.tokenizer->encode_training(run.dataset->caption(row), token_limits(run.config)).ids);
    }
  }
  if (io.find(prefix + "caption") != nullptr) {
    report.exact(prefix + "caption", stack_padded(captions), io.tensor(prefix + "caption"));
  }
  if (!run.tokenizer) return;
  const bool padded = run.config.pad_to_max_length && run.config.max_token_length >= 0;
  const auto tokens =
      pad_tokens(ids, run.tokenizer->id_of(run.config.padding_token), padded ? run.config.max_token_length : -1);
  report.exact(prefix + "tokens", tokens.tokens, io.tensor(prefix + "tokens"));
  if (io.find(prefix + "lm_mask") != nullptr)
    report.exact(prefix + "lm_mask", tokens.mask, io.tensor(prefix + "lm_mask"));
}

void check_reader_images(const ReaderRun& run, const std::vector<size_t>& rows, const std::string& prefix,
                         const TensorFile& io, ResizedValues& resized, Report& report) {
  if (io.find(prefix + "image") == nullptr) return;
  std::vector<at::Tensor> images;
  for (const size_t row : rows) images.push_back(image_tensor(reader_image(run, row).image));
  const at::Tensor batch = stack_padded(images), expected = io.tensor(prefix + "image");
  if (run.config.image_size < 0) {
    report.exact(prefix + "image", batch, expected);
  } else {
    resized.compare(report, prefix + "image", batch, expected);
  }
  if (io.find(prefix + "images_normalised") == nullptr) return;
  const at::Tensor normalised = (batch.to(at::kFloat) - 127).div(128).permute({0, 3, 1, 2});
  report.compare(prefix + "images_normalised", normalised, io.tensor(prefix + "images_normalised"), 1.001 / 128, 0);
}

void check_reader_batch(const ReaderRun& run, const std::vector<size_t>& rows, size_t number, const TensorFile& io,
                        ResizedValues& resized, Report& report) {
  const ReaderJson& expected = run.json["batches"][number];
  const std::string prefix = concat("b", number, ".");
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string where = concat(prefix, "row ", i);
    report.require(expected["file"][i] == std::string(run.dataset->file(rows[i])), where + " file");
    report.require(expected["tar"][i] == run.dataset->archive(rows[i]), where + " tar");
  }
  check_reader_text(run, rows, prefix, io, report);
  check_reader_images(run, rows, prefix, io, resized, report);
  if (io.find(prefix + "text_embedding") != nullptr) {
    std::vector<at::Tensor> embeddings;
    for (const size_t row : rows) embeddings.push_back(run.dataset->read_embedding(row));
    report.exact(prefix + "text_embedding", stack_padded(embeddings), io.tensor(prefix + "text_embedding"));
  }
  if (!expected.contains("after_load_batch") || !expected["after_load_batch"].contains("watermark_score")) return;
  const auto scores = expected["after_load_batch"]["watermark_score"][2].get<std::vector<double>>();
  for (size_t i = 0; i < rows.size(); ++i) {
    report.compare(prefix + "watermark_score", run.dataset->number("watermark_score", rows[i]), scores[i], 0, 0);
  }
}

// The same batches through the loader, which makes whole batches of square images.
void check_reader_loader(const ReaderRun& run, const TensorFile& io, ResizedValues& resized, Report& report) {
  const auto rows = run.json["batch_size"].get<int64_t>();
  if (run.config.image_size < 1 || !run.json["partition"].is_null() || run.json["skip_images"].get<bool>()) return;
  TrainingData data{
      run.dataset,
      std::make_shared<const CaptionTable>(CaptionTable::make(*run.dataset, run.tokenizer.get(), run.config, 1)),
      nullptr};
  data.plan = std::make_shared<const BatchPlan>(*data.captions, run.config, 0, rows);
  LoaderOptions options;
  options.reader = run.config;
  options.reader.num_readers = 2;
  Loader loader(data, options);
  for (size_t b = 0; b < run.json["batches"].size(); ++b) {
    const std::string prefix = concat("b", b, ".");
    const ReaderJson& expected = run.json["batches"][b];
    if (static_cast<int64_t>(expected["file"].size()) != rows) return;  // the end of the data
    const Batch batch = loader.next();
    const at::Tensor images = io.tensor(prefix + "image");
    // A batch of gray images alone has fewer channels there.
    resized.compare(report, "loader " + prefix + "image", batch.images.narrow(3, 0, images.size(3)), images);
    for (size_t i = 0; i < batch.captions.size(); ++i) {
      const auto row = run.rows[b * static_cast<size_t>(rows) + i];
      report.require(batch.captions[i] == run.dataset->caption(row), concat("loader ", prefix, "row ", i, " caption"));
    }
  }
}

void check_reader_end(const ReaderRun& run, size_t recorded, size_t batch_size, Report& report) {
  if (run.json.contains("error")) {
    // The reference stopped at the row that it could not read.
    bool refused = false;
    for (size_t i = recorded; i < std::min(run.rows.size(), recorded + batch_size); ++i) {
      try {
        reader_image(run, run.rows[i]);
      } catch (const DataError&) {
        refused = true;
      }
    }
    report.require(refused, "a row that the reference can't read was read");
  }
  if (run.json.value("ended", false)) {
    report.require(run.rows.size() == recorded, "number of rows", concat(run.rows.size(), ", expected ", recorded));
  }
}

}  // namespace

void check_reader_decode(const std::filesystem::path& path, const Context&, Report& report) {
  const auto io = tensors_beside(path);
  DecodeOptions options;
  options.as_mlx = true;
  const ReaderJson listed = read_json(path);
  for (const auto& [name, expected] : listed.items()) {
    const std::string bytes = read_text_file(path.parent_path() / "images" / name);
    if (out_of_decode_scope(bytes, expected)) continue;
    try {
      const Image image = decode_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), name, options);
      if (expected.contains("error")) {
        report.fail(name + " was decoded, and the reference can't");
      } else {
        report.exact(name, image_tensor(image), io.tensor(name));
      }
    } catch (const DataError& error) {
      report.require(expected.contains("error"), name, error.what());
    }
  }
}

void check_reader_resize(const std::filesystem::path& path, const Context&, Report& report) {
  const auto io = tensors_beside(path);
  ResizedValues values;
  DecodeOptions options;
  options.as_mlx = true;
  for (const auto& item : read_json(path)) {
    const auto name = item["image"].get<std::string>();
    const auto file = path.parent_path() / "images" / name;
    if (item.contains("image_resize")) {
      const int width = item["image_resize"][0], height = item["image_resize"][1];
      const std::string what = concat(name, ".to_", width, "x", height);
      values.compare(report, what, image_tensor(resize_clamped(load_image(file, options), width, height)),
                     io.tensor(what));
      continue;
    }
    const int target = item["target"];
    const std::string what = concat(name, ".", target, ".");
    const at::Tensor expected = io.tensor(what + "resized");
    const Image image = load_image(file, options);
    values.compare(
        report, what + "resized",
        image_tensor(resize_clamped(image, static_cast<int>(expected.size(1)), static_cast<int>(expected.size(0)))),
        expected);
    if (!item.contains("crop_xy")) continue;
    ReaderConfig config;
    config.compat = ReaderCompat::kMlx;
    config.image_size = target;
    const std::string bytes = read_text_file(file);
    const auto read = read_training_image(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), name, config);
    values.compare(report, what + "cropped", image_tensor(read.image), io.tensor(what + "cropped"));
    report.require(item["crop_xy"] == ReaderJson({read.crop_x, read.crop_y}), what + "crop_xy");
  }
  values.finish(report);
}

void check_reader_run(const std::filesystem::path& path, const Context& context, Report& report) {
  ReaderRun run;
  run.json = read_json(path);
  run.config = reader_config_of(run.json["reader_config"]);
  if (run.json["tokenizer"].get<bool>()) {
    const auto vocabulary = reference_file(context, "data/t5.vocab");
    if (vocabulary.empty()) return report.skip("needs data/t5.vocab of the reference's data files");
    TokenizerCompat compat;
    compat.keep_special_pieces = true;
    run.tokenizer = std::make_unique<MdmTokenizer>(MdmTokenizer::from_vocab(vocabulary, compat));
  }
  const auto io = tensors_beside(std::filesystem::absolute(path));
  const WorkingFolder folder(path.parent_path() / ".." / "data");
  DatasetOptions options;
  options.mlx = true;
  options.embeddings = run.json["load_numpy"];
  options.numbers = {"watermark_score"};
  run.dataset = Dataset::open(run.json["index"], options);
  const auto batch_size = run.json["batch_size"].get<size_t>();
  size_t recorded = 0;
  for (const auto& batch : run.json["batches"]) recorded += batch["file"].size();
  run.rows = reader_row_order(run, recorded + batch_size);
  ResizedValues resized;
  size_t first = 0;
  for (size_t b = 0; b < run.json["batches"].size(); ++b) {
    const size_t count = run.json["batches"][b]["file"].size();
    if (first + count > run.rows.size()) return report.fail("the list has too few rows");
    const std::vector<size_t> rows(run.rows.begin() + static_cast<std::ptrdiff_t>(first),
                                   run.rows.begin() + static_cast<std::ptrdiff_t>(first + count));
    check_reader_batch(run, rows, b, io, resized, report);
    first += count;
  }
  check_reader_end(run, recorded, batch_size, report);
  check_reader_loader(run, io, resized, report);
  resized.finish(report);
}

}  // namespace mdm::golden
