// Text encoders without a network: embeddings computed before, and class labels.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/text/text_encoder.h"

namespace mdm {

/// Looks captions up in a file of tensors, each (L, D) and named by its caption. The empty caption, which
/// guidance and dropped captions need, is one of them; in training it may be the only one, with the others'
/// embeddings beside the images (TextEncoder::encode_given).
class PrecomputedTextEncoder final : public TextEncoder {
 public:
  /// CheckpointError when the tensors are not all matrices of one width.
  PrecomputedTextEncoder(const std::filesystem::path& file, at::Device device);
  ~PrecomputedTextEncoder() override;

  TextKind kind() const override { return TextKind::kPrecomputed; }
  int64_t width() const override { return width_; }
  at::Device device() const override { return device_; }

 protected:
  /// DataError that names the nearest caption when one is not in the file.
  Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  int64_t width_ = 0;
  at::Device device_;
};

/// Class labels as one-hot vectors, (B, 1, C); the empty label is the zero vector (unconditional).
class ClassLabelEncoder final : public TextEncoder {
 public:
  /// `file` has a class a line, by itself or before a tab; lines like `<unk>` are no classes. `width`: -1
  /// for one per class (class i is i), or the width of a checkpoint: as many as classes, or the
  /// reference's numbering (tokenizer.py: read_dictionary), which counts its special words, three of them
  /// in front, so that class i is i + 3. ConfigError for another width.
  ClassLabelEncoder(const std::filesystem::path& file, int64_t width, at::Device device);

  TextKind kind() const override { return TextKind::kClass; }
  int64_t width() const override { return width_; }
  at::Device device() const override { return device_; }
  /// The column of a label (spaces around it don't count), -1 for the empty one; DataError that names
  /// the nearest class for an unknown one.
  int64_t column_of(const std::string& label) const;
  /// Whether column_of() takes the label: a class of the list, or the empty one.
  bool knows(std::string_view label) const;

 protected:
  Rows encode_rows(const std::vector<std::string>& captions, int64_t max_length, Use use) override;
  int64_t forced_length() const override { return 1; }  // a label has nothing to pad

 private:
  std::string where_;
  std::vector<std::string> names_;
  std::map<std::string, int64_t> columns_;
  int64_t width_;
  at::Device device_;
};

}  // namespace mdm
