// A tiny training run: a small network, and pictures, captions and text that are made from sample numbers.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "mdm/training/trainer.h"

namespace mdm::training_test {

constexpr int64_t kTextWidth = 12;
constexpr int64_t kKinds = 8;  // of pictures; sample n shows kind n % kKinds

/// A UNet of 14 thousand parameters on 8 x 8 pictures, or a nested one of twice that on 16 x 16; dropout 0.1.
Config tiny_config(bool nested = false, const Overrides& extra = {});
extern const Overrides kBothLevels;  ///< the loss of both levels counts
extern const Overrides kHalfMixed;   ///< ... and only half of the batch reaches the higher one
int64_t side_of(const Config& config);

/// The picture of a kind, (S, S, 3) uint8: a colour gradient of its own.
at::Tensor picture(int64_t kind, int64_t side);

/// Batches of pictures numbered through; some samples may be broken (weight 0, grey).
class ToyBatches : public BatchSource {
 public:
  ToyBatches(int64_t side, int64_t rows, int64_t micro_steps);
  Batch next() override;
  void seek(uint64_t step) override;
  std::string state_json() const override;
  void restore(const std::string& state_json) override;

  std::set<uint64_t> broken;          ///< sample numbers
  std::set<uint64_t> poisoned;        ///< steps whose first sample has an infinite weight, so the loss is no number
  bool poison_first_attempt = false;  ///< ... until seek() goes back
  int64_t fixed_samples = 0;          ///< > 0: all steps show samples 0 .. fixed_samples - 1
  uint64_t served = 0;                ///< a counter that a checkpoint keeps
  int64_t rank = 0, processes = 1;    ///< which rows of the step are this source's
  std::optional<uint64_t> fails_at;   ///< the step whose data can't be read

 private:
  int64_t side_, rows_, micro_steps_;
  uint64_t step_ = 0;
  int64_t micro_ = 0;
};

/// Features (B, 2, kTextWidth) of the picture's kind; with `learned`, rows of a table that is trained along.
class ToyText : public TextSource {
 public:
  explicit ToyText(bool learned = false);
  int64_t width() const override { return kTextWidth; }
  TextEmbedding embed(const Batch& batch) override;
  TextEmbedding of_kinds(const std::vector<int64_t>& kinds) const;
  std::vector<NamedTensor> trained() const override;
  std::string vocabulary() const override { return learned_ ? "a\t0\n" : ""; }

 private:
  at::Tensor table_;  // (kKinds, 2 kTextWidth)
  bool learned_;
};

/// All that a trainer needs, with weights drawn from a fixed seed that make no layer 0.
struct ToyRun {
  explicit ToyRun(const Config& config, bool learned_text = false);
  std::unique_ptr<Trainer> make_trainer();

  Config config;
  std::shared_ptr<UNet> model;
  ToyBatches data;
  ToyText text;
  TrainerParts parts;
};

/// SHA-256 over weights, averages and moments, bit for bit.
std::string digest(const ParameterArena& arena);

/// A folder of the test's own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Largest difference of each tensor as a share of the largest element in `b`'s; the largest of these.
double worst_difference(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b);

/// Their values, which later steps don't change.
std::vector<at::Tensor> copies(const std::vector<NamedTensor>& named);

}  // namespace mdm::training_test
