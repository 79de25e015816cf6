// What libmdm and the module mdm_sentencepiece tell each other: C types alone, and no exception crosses.
//
// The module exists because Debian's libsentencepiece and LibTorch's libc10 both export FLAGS_minloglevel,
// of different types. Linked into one program they become one variable, and SentencePiece's constructor
// writes past libc10's, over the flag that makes LibTorch abort where it should throw.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mdm {

enum SentencepieceOutcome : int32_t {
  kSentencepieceOk = 0,
  kSentencepieceRefused = 1,   ///< the error text says why
  kSentencepieceNoMemory = 2,  ///< no error text
};

/// Where the module leaves the text of an error: cut to `capacity` bytes, its closing NUL among them.
struct SentencepieceErrorText {
  char* text;
  size_t capacity;
};

/// Functions of the module. `model` is what create made; those that take it may run in several threads.
struct SentencepieceApi {
  uint32_t version;  ///< kSentencepieceApiVersion of the module's own build

  /// `*model` from the bytes of a serialised ModelProto, which are not kept.
  SentencepieceOutcome (*create)(const char* bytes, size_t size, void** model, SentencepieceErrorText error);
  void (*destroy)(void* model);
  /// How many pieces the model has.
  size_t (*size)(const void* model);
  /// The ids of `text`: `*count` says how many there are, of which the first `capacity` are written to `ids`.
  SentencepieceOutcome (*encode)(const void* model, const char* text, size_t size, int32_t* ids, size_t capacity,
                                 size_t* count, SentencepieceErrorText error);
};

constexpr uint32_t kSentencepieceApiVersion = 1;
constexpr const char* kSentencepieceModuleFile = "mdm_sentencepiece.so";
constexpr const char* kSentencepieceEntry = "mdm_sentencepiece_api";  ///< of type SentencepieceEntry
using SentencepieceEntry = const SentencepieceApi* (*)();

}  // namespace mdm
