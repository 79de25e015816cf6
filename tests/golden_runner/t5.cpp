// Golden cases of the T5 encoder: model/ (a Hugging Face folder) and io.safetensors (what it gives).
#include <ATen/ATen.h>

#include "golden_runner/runner.h"
#include "mdm/checkpoint/tensor_file.h"
#include "mdm/core/error.h"
#include "mdm/text/t5_encoder.h"

namespace mdm::golden {
namespace {

// A naive encoder in double precision differs from the goldens by up to 1.2e-5; outputs are about 1.
constexpr double kT5Absolute = 2e-5, kT5Relative = 2e-4;

double t5_root_mean_square(const at::Tensor& x) { return x.to(at::kDouble).square().mean().sqrt().item<double>(); }

// The prefixes "L7." ... of the lengths that the file holds.
std::vector<std::string> t5_length_prefixes(const TensorFile& io) {
  std::vector<std::string> prefixes;
  for (const auto& entry : io.entries()) {
    const size_t dot = entry.name.find(".ids");
    if (dot != std::string::npos && dot + 4 == entry.name.size()) prefixes.push_back(entry.name.substr(0, dot + 1));
  }
  return prefixes;
}

void check_t5_fp32(const T5Encoder& encoder, const TensorFile& io, const std::string& prefix, Report& report) {
  const auto compare = [&](const std::string& name, const at::Tensor& actual) {
    if (io.find(prefix + name) == nullptr) return;
    report.compare(prefix + name, actual, io.tensor(prefix + name), kT5Absolute, kT5Relative);
  };
  const at::Tensor ids = io.tensor(prefix + "ids").to(at::kLong), mask = io.tensor(prefix + "mask");
  compare("last_hidden_state", encoder.forward(ids, mask));
  T5Trace trace;
  compare("nomask_last_hidden_state", encoder.forward(ids, {}, &trace));
  if (trace.position_bias.defined()) compare("position_bias", trace.position_bias.unsqueeze(0));
  trace = {};
  encoder.forward(ids, mask, &trace);
  for (size_t i = 0; i < trace.hidden.size(); ++i) compare(concat("hidden_", i), trace.hidden[i]);

  // The reference's wrapper: mask = ids that are not padding, outputs times mask.
  const at::Tensor lm_mask = ids.ne(encoder.config().pad_token_id).to(at::kFloat);
  if (io.find(prefix + "wrapper_lm_mask") != nullptr) {
    report.exact(prefix + "wrapper_lm_mask", lm_mask, io.tensor(prefix + "wrapper_lm_mask"));
  }
  compare("wrapper_lm_outputs", encoder.forward(ids, lm_mask) * lm_mask.unsqueeze(-1));
}

// bf16 rounds differently in every library, so the error as a whole must be of the size of theirs.
void check_t5_bf16(const T5Encoder& encoder, const TensorFile& io, const std::string& prefix, Report& report) {
  if (io.find(prefix + "bf16_last_hidden_state") == nullptr) return;
  const at::Tensor ids = io.tensor(prefix + "ids").to(at::kLong), mask = io.tensor(prefix + "mask");
  const at::Tensor rows = mask.to(at::kBool).unsqueeze(-1);
  const at::Tensor exact = io.tensor(prefix + "last_hidden_state").masked_select(rows);
  const at::Tensor theirs = io.tensor(prefix + "bf16_last_hidden_state").to(at::kFloat).masked_select(rows);
  const at::Tensor ours = encoder.forward(ids, mask).masked_select(rows);
  report.compare(prefix + "bf16 rms", t5_root_mean_square(ours - exact), 0, 2 * t5_root_mean_square(theirs - exact), 0);
}

}  // namespace

void check_t5(const std::filesystem::path& path, const Context&, Report& report) {
  const auto files = find_text_model_files(path / "model");
  const auto io = TensorFile::open(path / "io.safetensors");
  const auto prefixes = t5_length_prefixes(io);
  report.require(!prefixes.empty(), "io.safetensors holds no token ids");
  {
    const auto encoder = T5Encoder::load(files);
    for (const auto& prefix : prefixes) check_t5_fp32(encoder, io, prefix, report);
  }
  T5Encoder::Options options;
  options.dtype = at::kBFloat16;
  const auto encoder = T5Encoder::load(files, options);
  for (const auto& prefix : prefixes) check_t5_bf16(encoder, io, prefix, report);
}

}  // namespace mdm::golden
