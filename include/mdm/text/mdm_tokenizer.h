// The tokenizer of the reference: shortest path through a lattice of vocabulary pieces over bytes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mdm/text/tokenizer.h"

namespace mdm {

/// Gives the ids that ml-mdm's models were trained on (ml_mdm/language_models/tokenizer.py in mode "t5"
/// with mlx-data's tokenizer). It differs from SentencePiece: spaces are kept, nothing is normalised,
/// unknown bytes vanish.
///
/// Rules. The cost of a piece is minus its score. Hypotheses are followed byte by byte; pieces that end
/// at the same byte meet in one node. A byte that no hypothesis accepts is dropped together with all
/// since the last node, and the search goes on from there. The cheapest path in double precision wins
/// (ties: src/text/lattice.h). Time O(bytes x longest piece).
class MdmTokenizer final : public Tokenizer {
 public:
  /// A file of lines `piece TAB score`; the line number is the id. DataError names the line.
  static MdmTokenizer from_vocab(const std::filesystem::path& file, const TokenizerCompat& compat = {});
  /// A SentencePiece model: its pieces with scores rounded to 5 decimals, and `<extra_id_99>` ...
  /// `<extra_id_0>` at score 0 behind them, which is how the reference's t5.vocab came to be.
  static MdmTokenizer from_spiece(const std::filesystem::path& file, const TokenizerCompat& compat = {});
  /// By content: a SentencePiece model or a .vocab.
  static MdmTokenizer open(const std::filesystem::path& file, const TokenizerCompat& compat = {});

  /// The text of a .vocab file, as vocab_text() gives it; `where` names the place in errors.
  static MdmTokenizer from_vocab_text(std::string_view text, const std::string& where,
                                      const TokenizerCompat& compat = {});

  MdmTokenizer(MdmTokenizer&&) noexcept;
  MdmTokenizer& operator=(MdmTokenizer&&) noexcept;
  ~MdmTokenizer() override;

  std::vector<int32_t> encode_inference(std::string_view text, const TokenLimits& limits) const override;
  TrainingTokens encode_training(std::string_view text, const TokenLimits& limits) const override;
  std::string kind() const override { return "mdm"; }
  int64_t vocab_size() const override;
  int32_t id_of(std::string_view piece) const override;
  std::string_view piece(int32_t id) const override;
  int32_t pad_id() const override;
  int32_t eos_id() const override;
  int32_t bos_id() const override;

  /// The lattice alone: ids of `bytes` as they are, without added spaces, EOS or limits.
  std::vector<int32_t> tokenize(std::string_view bytes, bool use_scores = true) const;
  double cost(int32_t id) const;
  /// The vocabulary as the text of a .vocab file, to be kept in a checkpoint. ConfigError when a piece has no
  /// place in such a file.
  std::string vocab_text() const;

 private:
  struct Impl;
  explicit MdmTokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mdm
