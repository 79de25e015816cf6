// The module mdm_sentencepiece: the one file that knows the SentencePiece library. Nothing links it;
// sentencepiece_library.cpp loads it when a t5 tokenizer is opened.
#include <dlfcn.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "text/sentencepiece_api.h"

namespace {

using mdm::SentencepieceErrorText;
using mdm::SentencepieceOutcome;
using sentencepiece::SentencePieceProcessor;

void write_error(SentencepieceErrorText error, const char* text) noexcept {
  if (error.capacity == 0) return;
  const size_t length = std::min(std::strlen(text), error.capacity - 1);
  std::memcpy(error.text, text, length);
  error.text[length] = '\0';
}

// `function()` gives a Status; what it throws becomes an outcome too.
template <typename Function>
SentencepieceOutcome guarded(SentencepieceErrorText error, const Function& function) noexcept {
  try {
    const auto status = function();
    if (status.ok()) return mdm::kSentencepieceOk;
    write_error(error, status.ToString().c_str());
    return mdm::kSentencepieceRefused;
  } catch (const std::bad_alloc&) {
    return mdm::kSentencepieceNoMemory;
  } catch (const std::exception& exception) {
    write_error(error, exception.what());
  } catch (...) {
    write_error(error, "an exception of unknown type");
  }
  return mdm::kSentencepieceRefused;
}

// A program that names std::cerr may hold the stream itself (a copy relocation), and the C++ library
// then sets up that one. Bound to its own libraries first (RTLD_DEEPBIND), SentencePiece sees the C++
// library's own object instead, which nobody set up, and its first message would end the process.
void set_up_stream(std::ostream& seen_here, void* program, const char* symbol) {
  auto* const of_the_program = static_cast<std::ostream*>(dlsym(program, symbol));
  if (of_the_program == nullptr || of_the_program == &seen_here) return;
  auto* const stream = new (static_cast<void*>(&seen_here)) std::ostream(of_the_program->rdbuf());
  stream->setf(of_the_program->flags());
}

void set_up_streams_once() {
  static const bool done = [] {
    void* const program = dlopen(nullptr, RTLD_LAZY);  // RTLD_DEFAULT would begin with our own libraries
    if (program == nullptr) return false;
    set_up_stream(std::cerr, program, "_ZSt4cerr");
    set_up_stream(std::cout, program, "_ZSt4cout");
    dlclose(program);
    return true;
  }();
  static_cast<void>(done);
}

SentencepieceOutcome create(const char* bytes, size_t size, void** model, SentencepieceErrorText error) {
  return guarded(error, [&] {
    set_up_streams_once();
    auto processor = std::make_unique<SentencePieceProcessor>();
    auto status = processor->LoadFromSerializedProto({bytes, size});
    if (status.ok()) *model = processor.release();
    return status;
  });
}

void destroy(void* model) { delete static_cast<SentencePieceProcessor*>(model); }

size_t size_of(const void* model) {
  return static_cast<size_t>(static_cast<const SentencePieceProcessor*>(model)->GetPieceSize());
}

SentencepieceOutcome encode(const void* model, const char* text, size_t size, int32_t* ids, size_t capacity,
                            size_t* count, SentencepieceErrorText error) {
  return guarded(error, [&] {
    std::vector<int> all;
    auto status = static_cast<const SentencePieceProcessor*>(model)->Encode({text, size}, &all);
    *count = all.size();
    std::copy_n(all.begin(), std::min(all.size(), capacity), ids);
    return status;
  });
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const mdm::SentencepieceApi* mdm_sentencepiece_api() {
  static const mdm::SentencepieceApi api{mdm::kSentencepieceApiVersion, create, destroy, size_of, encode};
  return &api;
}
