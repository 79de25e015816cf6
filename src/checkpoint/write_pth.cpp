// Writing .pth files, streamed tensor by tensor.
#include "checkpoint/open_file.h"
#include "checkpoint/pickle_writer.h"
#include "checkpoint/torch_archive.h"
#include "checkpoint/write_common.h"
#include "checkpoint/zip_writer.h"
#include "mdm/core/error.h"

namespace mdm::checkpoint {
namespace {

// torch.save names the folder inside the archive after the file; other readers want ASCII.
std::string archive_name(const std::filesystem::path& path) {
  std::string name = path.stem().string();
  for (char& c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
    if (!plain) c = '_';
  }
  return name.empty() || name == "." || name == ".." ? "archive" : name;
}

std::string checkpoint_pickle(const std::vector<WriteSection>& sections, const std::string& items_json,
                              const std::string& place) {
  PickleWriter pickle;
  pickle.begin_dict();
  size_t storage = 0;
  std::vector<std::string> names;
  for (const auto& section : sections) {
    names.push_back(section.name);
    pickle.text(section.name);
    pickle.begin_ordered_dict();
    for (const auto& item : section.items) {
      if (info(item.type).torch_storage.empty()) {
        fail<CheckpointError>(place, ": tensor '", printable(item.name), "' is ", info(item.type).torch_dtype,
                              ", which .pth files can't hold in a way that every PyTorch reads; use safetensors");
      }
      pickle.text(item.name);
      pickle.tensor(item.type, item.shape, std::to_string(storage++));
    }
    pickle.end_ordered_dict();
  }
  pickle_json_members(pickle, items_json, names, place);
  pickle.end_dict();
  return pickle.finish();
}

// Opens the file under its temporary name as any reader would, and checks every checksum.
void check_written_archive(const AtomicFile& file, size_t tensors) {
  const auto bytes = open_bytes(file.temporary_path(), true);
  const TorchArchive archive(bytes, FileFormat::kTorchZip);
  for (const ZipEntry& entry : archive.zip()->entries()) {
    if (!archive.zip()->crc_matches(entry)) {
      fail<Error>(archive.place(), ": holds other bytes than were written; the disk may be failing");
    }
  }
  if (archive.storage_count() != tensors) fail<Error>(archive.place(), ": lost tensors while being written");
}

}  // namespace

void save_pth(const std::filesystem::path& path, const std::vector<WriteSection>& sections,
              const std::string& items_json) {
  const std::string pickle = checkpoint_pickle(sections, items_json, place_of(path));
  AtomicFile file(path);
  ZipWriter zip(file);
  const std::string prefix = archive_name(path) + "/";
  zip.add(prefix + "data.pkl", pickle);
  zip.add(prefix + ".format_version", "1");
  zip.add(prefix + ".storage_alignment", "64");
  zip.add(prefix + "byteorder", "little");
  size_t storage = 0;
  for (const auto& section : sections) {
    for (const auto& item : section.items) {
      const at::Tensor values = written_values(item);
      zip.begin(concat(prefix, "data/", storage++), values.nbytes());
      zip.write(values.const_data_ptr(), values.nbytes());
      zip.end();
    }
  }
  zip.add(prefix + "version", "3\n");
  zip.finish();
  check_written_archive(file, storage);
  file.commit();
}

}  // namespace mdm::checkpoint
