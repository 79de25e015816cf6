// A data set once it is open: its texts, and the bytes of its members.
#include "mdm/data/dataset.h"

#include <cmath>
#include <limits>

#include "data/dataset_rows.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

void read_member(detail::ArchivePool& pool, const MemberPlace& place, const std::string& where,
                 std::vector<uint8_t>& bytes) {
  if (const std::string problem = problem_of(place); !problem.empty()) fail<DataError>(where, ": ", problem);
  bytes.resize(place.size);
  const auto file = pool.get(place.archive);
  if (!file->read_at(place.offset, bytes.data(), bytes.size())) {
    fail<DataError>(where, ": the archive ends inside this file; it was changed since it was opened");
  }
}

}  // namespace

std::string problem_of(const MemberPlace& place) {
  if (place.size == kMissingMember) return "the archive does not contain this file";
  if (place.size == kLargeMember)
    return concat("the file is larger than the ", kMostMemberBytes, " bytes that are read");
  return {};
}

Dataset::Dataset() : impl_(std::make_unique<Impl>()) {}
Dataset::~Dataset() = default;

size_t Dataset::size() const { return impl_->rows.size(); }
std::string_view Dataset::caption(size_t sample) const { return impl_->caption(impl_->rows[sample]); }
std::string_view Dataset::file(size_t sample) const { return impl_->file(impl_->rows[sample]); }

const std::string& Dataset::archive(size_t sample) const { return impl_->archives[impl_->rows[sample].image.archive]; }

std::string Dataset::where(size_t sample) const {
  return concat(printable(archive(sample), 1000), ": ", printable(file(sample)));
}

void Dataset::read_image(size_t sample, std::vector<uint8_t>& bytes) const {
  read_member(*impl_->pool, impl_->rows[sample].image, where(sample), bytes);
}

at::Tensor Dataset::read_embedding(size_t sample) const {
  const std::string name = concat("embedding of ", where(sample));
  if (impl_->embeddings.empty()) fail<DataError>(name, ": the list has no columns text_tar and text_file");
  std::vector<uint8_t> bytes;
  read_member(*impl_->pool, impl_->embeddings[sample], name, bytes);
  return read_npy_matrix({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name);
}

size_t Dataset::largest_embedding_bytes() const { return impl_->largest_embedding; }

bool Dataset::has_number(const std::string& column) const { return impl_->numbers.count(column) != 0; }

float Dataset::number(const std::string& column, size_t sample) const {
  const auto found = impl_->numbers.find(column);
  return found == impl_->numbers.end() ? std::numeric_limits<float>::quiet_NaN() : found->second[sample];
}

const std::map<std::string, uint64_t>& Dataset::bad_rows() const { return impl_->bad_rows; }

}  // namespace mdm
