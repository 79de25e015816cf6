#include "data/test_data.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "data/tar_header.h"
#include "mdm/core/files.h"
#include "mdm/data/tar.h"
#include "mdm/media/png.h"

namespace mdm::data_test {
namespace {

class WordTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode_inference(std::string_view text, const TokenLimits&) const override { return ids(text); }
  TrainingTokens encode_training(std::string_view text, const TokenLimits& limits) const override {
    if (limits.max_caption_length >= 0 && text.size() + 2 > static_cast<size_t>(limits.max_caption_length)) {
      return {{}, false};
    }
    TrainingTokens tokens{ids(text), true};
    if (limits.max_token_length >= 0 && tokens.ids.size() > static_cast<size_t>(limits.max_token_length)) {
      return {{}, false};
    }
    return tokens;
  }
  std::string kind() const override { return "words"; }
  int64_t vocab_size() const override { return 1000; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string_view piece(int32_t) const override { return "word"; }
  int32_t pad_id() const override { return 0; }
  int32_t eos_id() const override { return 1; }
  int32_t bos_id() const override { return 2; }

 private:
  static std::vector<int32_t> ids(std::string_view text) {
    std::vector<int32_t> out;
    std::istringstream stream{std::string(text)};
    for (std::string word; stream >> word;) out.push_back(3 + static_cast<int32_t>(word.size()));
    out.push_back(1);
    return out;
  }
};

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "mdm_data_XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::write(const std::string& name, const std::string& bytes) const {
  std::filesystem::create_directories((path_ / name).parent_path());
  std::ofstream(path_ / name, std::ios::binary) << bytes;
  return path(name);
}

std::string write_tar(const TemporaryFolder& folder, const std::string& name, const Members& members) {
  TarWriter writer(folder.path(name));
  for (const auto& [member, content] : members) writer.add(member, content);
  writer.finish();
  return folder.path(name);
}

std::string write_sparse_tar(const TemporaryFolder& folder, const std::string& name, const std::string& member,
                             uint64_t size) {
  tar::Header header;
  std::memset(&header, 0, sizeof header);
  std::memcpy(header.name, member.data(), member.size());
  std::snprintf(header.size, sizeof header.size, "%011llo", static_cast<unsigned long long>(size));
  header.type = '0';
  std::memset(header.checksum, ' ', sizeof header.checksum);
  unsigned sum = 0;
  for (size_t i = 0; i < sizeof header; ++i) sum += reinterpret_cast<const uint8_t*>(&header)[i];
  std::snprintf(header.checksum, sizeof header.checksum, "%06o", sum);
  const std::string path = folder.write(name, std::string(reinterpret_cast<const char*>(&header), sizeof header));
  std::filesystem::resize_file(path, tar::kBlock + (size + tar::kBlock - 1) / tar::kBlock * tar::kBlock + 1024);
  return path;
}

std::string npy_row(const std::vector<float>& values) {
  const std::string header =
      "{'descr': '<f4', 'fortran_order': False, 'shape': (1, " + std::to_string(values.size()) + "), }\n";
  std::string npy("\x93NUMPY\x01\0", 8);
  npy += static_cast<char>(header.size());
  npy += '\0' + header;
  npy.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  return npy;
}

NoNewThreads::NoNewThreads() {
  ::pthread_getattr_default_np(&before_);
  pthread_attr_t huge;
  ::pthread_getattr_default_np(&huge);
  ::pthread_attr_setstacksize(&huge, size_t{1} << 47);
  if (::pthread_setattr_default_np(&huge) != 0) throw std::runtime_error("the size of stacks can't be set");
  ::pthread_attr_destroy(&huge);
}

NoNewThreads::~NoNewThreads() {
  ::pthread_setattr_default_np(&before_);
  ::pthread_attr_destroy(&before_);
}

std::string bytes_of(const std::string& file) { return read_text_file(file); }

std::string picture(int number, int width, int height) {
  Image image(width, height, 3);
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = static_cast<uint8_t>(i * 7 + static_cast<size_t>(number) * 31 + (i / 64) * 13);
  }
  return encode_png(image);
}

std::string small_set(const TemporaryFolder& folder, int count, const std::vector<int>& broken) {
  Members members;
  std::string shard = "tar\tfile\tcaption\tscore\n";
  for (int i = 0; i < count; ++i) {
    const std::string name = std::to_string(i) + ".png";
    const bool bad = std::find(broken.begin(), broken.end(), i) != broken.end();
    members.emplace_back(name, bad ? "this is no picture" : picture(i));
    shard += "images.tar\t" + name + "\tcaption " + std::to_string(i) + "\t0.5\n";
  }
  write_tar(folder, "images.tar", members);
  folder.write("shard.tsv", shard);
  return folder.write("index.tsv", "filename\nshard.tsv\n");
}

std::unique_ptr<Tokenizer> word_tokenizer() { return std::make_unique<WordTokenizer>(); }

std::string words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += i == 0 ? "w" : " w";
  return text;
}

std::shared_ptr<const Dataset> captions_alone(const TemporaryFolder& folder, const std::vector<int>& word_counts) {
  write_tar(folder, "one.tar", {{"x", "x"}});
  std::string shard = "tar\tfile\tcaption\n";
  for (const int count : word_counts) shard += "one.tar\tx\t" + (count == 0 ? "\"\"" : words(count)) + "\n";
  return Dataset::open(folder.write("captions.tsv", shard));
}

size_t mutant_count() {
  const char* text = std::getenv("MDM_MUTANTS");
  return text == nullptr ? 2000 : static_cast<size_t>(std::strtoull(text, nullptr, 10));
}

}  // namespace mdm::data_test
