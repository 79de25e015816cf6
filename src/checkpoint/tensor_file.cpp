// TensorFile: recognises the format of a file, and shows its tensors as views of the mapping.
#include "mdm/checkpoint/tensor_file.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "checkpoint/loaded_file.h"
#include "checkpoint/open_file.h"
#include "checkpoint/scalar_type.h"
#include "mdm/core/error.h"

namespace mdm {

using checkpoint::LoadedFile;
using checkpoint::TensorRecord;

int64_t TensorEntry::numel() const {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

struct TensorFile::Impl {
  struct Place {
    const uint8_t* data;
    std::vector<int64_t> strides;  // empty: contiguous
    uint32_t file;
    uint8_t element_size;
  };
  std::filesystem::path path;
  std::vector<TensorEntry> entries;
  std::vector<Place> places;      // of entries[i]
  std::vector<uint32_t> by_name;  // indices of entries, sorted by name
  std::vector<std::shared_ptr<const FileBytes>> files;
  std::string metadata_json;

  at::Tensor view(std::string_view name, bool passing) const;
  size_t find(std::string_view name) const {
    const auto at = std::lower_bound(by_name.begin(), by_name.end(), name, [&](uint32_t i, std::string_view wanted) {
      return std::string_view(entries[i].name) < wanted;
    });
    return at != by_name.end() && entries[*at].name == name ? *at : entries.size();
  }
};

namespace {

// How far a strided tensor reaches from its first element, in elements; the parser has checked the sums.
int64_t element_span(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  int64_t last = 0;
  for (size_t d = 0; d < shape.size(); ++d) last += (shape[d] - 1) * strides[d];
  return last + 1;
}

std::vector<int64_t> packed_strides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(shape[d], 1);
  return strides;
}

}  // namespace

TensorFile TensorFile::open(const std::filesystem::path& path, const Options& options) {
  LoadedFile loaded = checkpoint::open_file(path, {options.map, options.state_dict_path});
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  impl->files = std::move(loaded.files);
  impl->metadata_json = std::move(loaded.metadata_json);
  impl->entries.reserve(loaded.tensors.size());
  impl->places.reserve(loaded.tensors.size());
  for (size_t i = 0; i < loaded.tensors.size(); ++i) {
    TensorRecord& record = loaded.tensors[i];
    impl->entries.push_back({std::move(record.name), checkpoint::to_scalar_type(record.type), std::move(record.shape)});
    impl->places.push_back({record.data, std::move(record.strides), loaded.file_of.empty() ? 0 : loaded.file_of[i],
                            checkpoint::info(record.type).size});
  }
  impl->by_name.resize(impl->entries.size());
  std::iota(impl->by_name.begin(), impl->by_name.end(), 0U);
  std::sort(impl->by_name.begin(), impl->by_name.end(),
            [&](uint32_t a, uint32_t b) { return impl->entries[a].name < impl->entries[b].name; });
  return TensorFile(std::move(impl));
}

TensorFile::TensorFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TensorFile::TensorFile(TensorFile&&) noexcept = default;
TensorFile& TensorFile::operator=(TensorFile&&) noexcept = default;
TensorFile::~TensorFile() = default;

const std::filesystem::path& TensorFile::path() const { return impl_->path; }
const std::vector<TensorEntry>& TensorFile::entries() const { return impl_->entries; }
const std::string& TensorFile::metadata_json() const { return impl_->metadata_json; }

const TensorEntry* TensorFile::find(std::string_view name) const {
  const size_t i = impl_->find(name);
  return i < impl_->entries.size() ? &impl_->entries[i] : nullptr;
}

void TensorFile::release(const TensorEntry& entry) const {
  const size_t i = impl_->find(entry.name);
  if (i == impl_->entries.size() || entry.numel() == 0) return;
  const Impl::Place& place = impl_->places[i];
  const int64_t span = place.strides.empty() ? entry.numel() : element_span(entry.shape, place.strides);
  impl_->files[place.file]->release(place.data, static_cast<size_t>(span) * place.element_size);
}

at::Tensor TensorFile::tensor(std::string_view name) const { return impl_->view(name, /*passing=*/false); }
at::Tensor TensorFile::passing_tensor(std::string_view name) const { return impl_->view(name, /*passing=*/true); }

at::Tensor TensorFile::Impl::view(std::string_view name, bool passing) const {
  const size_t i = find(name);
  if (i == entries.size()) {
    std::vector<std::string_view> names;
    for (const auto& entry : entries) {
      if (entry.name.size() <= 200 && names.size() < 10'000) names.push_back(entry.name);
    }
    const std::string_view near = nearest_name(name, names);
    fail<CheckpointError>(printable(path.string(), 1000), ": has no tensor '", printable(name), "'",
                          near.empty() ? "" : concat("; the nearest name is '", printable(near), "'"));
  }
  const TensorEntry& entry = entries[i];
  const Impl::Place& place = places[i];
  const auto options = at::TensorOptions().dtype(entry.dtype);
  if (entry.numel() == 0) return at::empty(entry.shape, options);

  const std::vector<int64_t> strides = place.strides.empty() ? packed_strides(entry.shape) : place.strides;
  if (reinterpret_cast<uintptr_t>(place.data) % place.element_size != 0) {
    // Only the span is copied: an expanded tensor stays as small as it is in the file.
    const int64_t span = element_span(entry.shape, strides);
    at::Tensor copy = at::empty({span}, options);
    std::memcpy(copy.data_ptr(), place.data, static_cast<size_t>(span) * place.element_size);
    return copy.as_strided(entry.shape, strides);
  }
  auto* data = const_cast<uint8_t*>(place.data);  // from_blob takes no const pointer; see the header
  const auto bytes = static_cast<size_t>(element_span(entry.shape, strides)) * place.element_size;
  const auto let_go = [file = files[place.file], bytes, passing](void* from) {
    if (passing) file->release(static_cast<const uint8_t*>(from), bytes);
  };
  return at::from_blob(data, entry.shape, strides, let_go, options);
}

}  // namespace mdm
