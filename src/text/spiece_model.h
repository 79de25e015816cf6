// A reader of SentencePiece model files (the protobuf message ModelProto), bounded and checked.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace mdm {

enum class SpieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct SpiecePiece {
  std::string_view text;  ///< points into SpieceModel::bytes; 1 to 65,535 bytes without NUL
  float score = 0;        ///< finite, |score| <= 1e6
  SpieceType type = SpieceType::kNormal;
};

/// The parts of the file that tokenising needs. Views stay valid as long as the object lives.
struct SpieceModel {
  std::shared_ptr<const std::string> bytes;  ///< of the file
  std::vector<SpiecePiece> pieces;           ///< the index is the id
  std::string_view precompiled_charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  int64_t model_type = 1;  ///< 1: unigram
  bool treat_whitespace_as_suffix = false;
  bool byte_fallback = false;
};

/// Reads at most 8 MiB. DataError names the file and the byte when it is no such model, is damaged, or
/// holds no piece, too many, an empty one, or a score that is no usable number.
SpieceModel read_spiece_model(const std::filesystem::path& file);

/// Does the file begin as a SentencePiece model does (field 1, a message)?
bool looks_like_spiece_model(std::string_view bytes);

/// Throws DataError when following the map (a double array over bytes, then strings) could leave it.
void check_charsmap(std::string_view charsmap, const std::string& where);

/// The model written again from what was read and nothing else: what SentencePiece is given.
std::string serialize(const SpieceModel& model);

}  // namespace mdm
