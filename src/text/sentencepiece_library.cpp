// Finds and loads the module mdm_sentencepiece.
#include "text/sentencepiece_library.h"

#include <dlfcn.h>
#include <link.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "mdm/core/error.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModuleVariable = "MDM_SENTENCEPIECE_MODULE";

// SentencePiece finds its own variables before LibTorch's of the same names. AddressSanitizer, which
// stands between a program and its allocator, can't work with that.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kBinding = 0;
#else
constexpr int kBinding = RTLD_DEEPBIND;
#endif
// It stays in the process (RTLD_NODELETE): libraries with static objects are not made to be unloaded.
constexpr int kLoadFlags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | kBinding;

// Where the module may lie: below the folder of the library that this code is part of; below that of the
// program, or in the lib/ beside it, when this code was linked into the program itself.
std::vector<fs::path> usual_places() {
  Dl_info info{};
  link_map* map = nullptr;
  static const char here = 0;
  if (dladdr1(&here, &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0 || map == nullptr) return {};
  std::error_code ignored;
  if (map->l_name[0] != '\0') {
    const fs::path library(map->l_name);
    std::vector<fs::path> places{library.parent_path() / "mdm"};
    const fs::path real = fs::canonical(library, ignored);  // it may have been found through a link
    if (!real.empty() && real.parent_path() / "mdm" != places[0]) places.push_back(real.parent_path() / "mdm");
    return places;
  }
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  if (program.empty()) return {};
  return {program.parent_path() / "lib/mdm", program / "lib/mdm", program / "mdm"};
}

fs::path find_module() {
  const char* set = std::getenv(kModuleVariable);
  if (set != nullptr && *set != '\0') return fs::path(".") / set;  // without a slash dlopen would search the system
  std::string looked;
  for (const fs::path& place : usual_places()) {
    std::error_code ignored;
    if (fs::exists(place / kSentencepieceModuleFile, ignored)) return place / kSentencepieceModuleFile;
    looked += (looked.empty() ? "" : ", ") + printable(place.string(), 1000);
  }
  fail<ConfigError>("the t5 tokenizer needs libmdm's module ", kSentencepieceModuleFile, ", which is not in ", looked,
                    "; the environment variable ", kModuleVariable, " may name it");
}

// The text of the last failure of dlopen or dlsym.
std::string loader_error() {
  const char* text = dlerror();
  return text != nullptr ? printable(text, 1000) : "no reason given";
}

std::shared_ptr<void> load_module(const fs::path& file) {
  void* const library = dlopen(file.c_str(), kLoadFlags);
  if (library == nullptr) {
    const std::string reason = loader_error();
    const char* set = std::getenv(kModuleVariable);
    fail<ConfigError>("the t5 tokenizer's module ", printable(file.string(), 1000),
                      set != nullptr && *set != '\0' ? concat(" (named by ", kModuleVariable, ")") : "",
                      " can't be loaded: ", reason);
  }
  return {library, [](void* handle) { dlclose(handle); }};
}

const SentencepieceApi* api_of(void* library, const fs::path& file) {
  void* const symbol = dlsym(library, kSentencepieceEntry);
  if (symbol == nullptr) {
    fail<ConfigError>(printable(file.string(), 1000), ": is no module ", kSentencepieceModuleFile,
                      " of libmdm: ", loader_error());
  }
  const SentencepieceApi* api = reinterpret_cast<SentencepieceEntry>(symbol)();
  if (api->version != kSentencepieceApiVersion) {
    fail<ConfigError>(printable(file.string(), 1000), ": is of another release of libmdm: its interface has version ",
                      api->version, ", not ", kSentencepieceApiVersion);
  }
  return api;
}

// Calls one of the module's functions and throws what it reports.
template <typename Call>
void check(const std::string& what, const Call& call) {
  std::array<char, 1024> text{};
  const auto outcome = call(SentencepieceErrorText{text.data(), text.size()});
  if (outcome == kSentencepieceNoMemory) throw std::bad_alloc();
  if (outcome != kSentencepieceOk) fail<DataError>(what, ": ", printable(text.data(), text.size()));
}

}  // namespace

SentencepieceModel::SentencepieceModel(std::string_view bytes, const std::string& where) : model_(nullptr, nullptr) {
  const fs::path file = find_module();
  library_ = load_module(file);
  api_ = api_of(library_.get(), file);
  void* model = nullptr;
  check(where + ": SentencePiece refuses it",
        [&](SentencepieceErrorText error) { return api_->create(bytes.data(), bytes.size(), &model, error); });
  model_ = {model, api_->destroy};
}

std::vector<int32_t> SentencepieceModel::encode(std::string_view text) const {
  // As many ids as bytes hold nearly every text; normalisation makes a few longer, and then what the
  // first call reports is room for the second.
  std::vector<int32_t> ids;
  size_t count = text.size() + 16;
  while (ids.size() < count) {
    ids.resize(count);
    check("SentencePiece can't tokenise a caption", [&](SentencepieceErrorText error) {
      return api_->encode(model_.get(), text.data(), text.size(), ids.data(), ids.size(), &count, error);
    });
  }
  ids.resize(count);
  return ids;
}

}  // namespace mdm
