// A SentencePiece model of five pieces, for tests that need any.
#pragma once

#include <cstring>
#include <string>

namespace mdm::test_support {

/// The bytes of a spiece.model in which "a" has the id 3 and "b" the id 4, with the dummy space before the
/// text as part of the piece.
inline std::string tiny_spiece_model() {
  const struct {
    const char* text;
    float score;
    char type;  // 1 normal, 2 unknown, 3 control
  } pieces[] = {{"<pad>", 0, 3},
                {"</s>", 0, 3},
                {"<unk>", 0, 2},
                {"\xE2\x96\x81"
                 "a",
                 -1, 1},
                {"\xE2\x96\x81"
                 "b",
                 -2, 1}};
  std::string model;
  for (const auto& piece : pieces) {
    std::string score(4, '\0');
    std::memcpy(score.data(), &piece.score, 4);
    const std::string text = piece.text;
    const std::string message =
        std::string("\x0A") + static_cast<char>(text.size()) + text + "\x15" + score + "\x18" + piece.type;
    model += std::string("\x0A") + static_cast<char>(message.size()) + message;
  }
  return model;
}

}  // namespace mdm::test_support
