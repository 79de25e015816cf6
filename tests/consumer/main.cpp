// What an outside project does with libmdm: opens a checkpoint and looks at it.
// usage: consumer FOLDER (one to write into)
#include <mdm/checkpoint/tensor_file.h>
#include <mdm/core/error.h>
#include <mdm/core/files.h>
#include <mdm/core/version.h>

#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>

namespace {

// A safetensors file by hand: one 2x3 tensor of fp32.
void write_checkpoint(const std::filesystem::path& path) {
  const float values[6] = {0, 1, 2, 3, 4, 5};
  std::string header = R"({"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string file(8, '\0');
  for (int byte = 0; byte < 8; ++byte) file[byte] = static_cast<char>(header.size() >> (8 * byte) & 0xff);
  file += header;
  file.append(reinterpret_cast<const char*>(values), sizeof(values));
  mdm::write_file(path, file);
}

int run(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "consumer.safetensors";
  write_checkpoint(path);
  const mdm::TensorFile file = mdm::TensorFile::open(path);
  const at::Tensor weight = file.tensor("weight");
  const double sum = weight.sum().item<double>();
  std::cout << "libmdm " << mdm::version() << ": " << file.entries().size() << " tensor, sum " << sum << "\n";
  if (weight.sizes() != at::IntArrayRef({2, 3}) || sum != 15) return 1;

  // Errors cross the library's border as the types that the headers promise.
  try {
    mdm::TensorFile::open(folder / "no-such-file.pth");
  } catch (const mdm::Error& error) {
    std::cout << "as it should: " << error.what() << "\n";
    return 0;
  }
  std::cerr << "a missing file was opened\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : ".");
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
