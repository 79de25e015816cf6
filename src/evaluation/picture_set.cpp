#include "mdm/evaluation/picture_set.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "data/archive_file.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/data/dataset.h"
#include "mdm/data/tar.h"

namespace mdm {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMostListBytes = size_t{256} << 20;
constexpr uint64_t kMostPictureBytes = uint64_t{256} << 20;
constexpr uint64_t kMostCaptionBytes = uint64_t{1} << 20;
constexpr const char* kPictureEndings[] = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tga", ".ppm", ".pgm", ".pnm"};

std::string shown(const fs::path& path) { return printable(path.string(), 1000); }

bool has_ending(const std::string& name, const char* ending) {
  const std::string wanted(ending);
  return name.size() > wanted.size() && std::equal(wanted.rbegin(), wanted.rend(), name.rbegin(), [](char a, char b) {
           return a == (b >= 'A' && b <= 'Z' ? static_cast<char>(b - 'A' + 'a') : b);
         });
}

bool is_picture_name(const std::string& name) {
  return std::any_of(std::begin(kPictureEndings), std::end(kPictureEndings),
                     [&](const char* ending) { return has_ending(name, ending); });
}

// Regular files of a folder that `wanted` takes, by name.
template <typename Wanted>
std::vector<fs::path> files_of(const fs::path& folder, const Wanted& wanted) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    std::error_code ignored;
    if (!name.empty() && name[0] != '.' && wanted(name) && at->is_regular_file(ignored)) files.push_back(at->path());
  }
  if (error) fail<DataError>(shown(folder), ": can't be read: ", error.message());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

struct PictureSet::Impl {
  struct Member {
    size_t archive;
    TarMember picture;
    TarMember caption;  // without a name where there is none
  };
  std::string where;
  std::vector<fs::path> files;
  std::shared_ptr<const Dataset> dataset;
  std::vector<fs::path> archives;
  std::vector<Member> members;
  std::unique_ptr<detail::ArchivePool> pool;
  std::vector<std::string> captions;  // each for `each` pictures in a row
  size_t each = 1;
  bool members_have_captions = false;

  size_t size() const { return dataset ? dataset->size() : members.empty() ? files.size() : members.size(); }

  void open_list(const fs::path& file) {
    const auto list = nlohmann::json::parse(read_text_file(file, kMostListBytes), nullptr, false);
    if (!list.is_array()) fail<DataError>(shown(file), ": is no list of [path, caption] in JSON");
    for (const auto& item : list) {
      if (!item.is_array() || item.size() != 2 || !item[0].is_string() || !item[1].is_string()) {
        fail<DataError>(shown(file), ": entry ", files.size(), " is not [path, caption]");
      }
      files.push_back(file.parent_path() / item[0].get<std::string>());
      captions.push_back(item[1].get<std::string>());
    }
  }

  void open_archives(std::vector<fs::path> paths) {
    archives = std::move(paths);
    members_have_captions = true;
    for (size_t i = 0; i < archives.size(); ++i) add_members(i, TarIndex::open(archives[i]));
    constexpr int64_t kMostOpen = 64;
    pool = std::make_unique<detail::ArchivePool>(archives, kMostOpen);
    members_have_captions = members_have_captions && !members.empty();
  }

  void add_members(size_t archive, const TarIndex& index) {
    if (!index.problem().empty()) {  // what is missing would silently make another score
      fail<DataError>(shown(archives[archive]), ": is damaged: ", index.problem());
    }
    for (const TarMember& member : index.members()) {
      if (!is_picture_name(member.name)) continue;
      const size_t folder = member.name.rfind('/');
      const size_t dot = member.name.find('.', folder == std::string::npos ? 0 : folder);
      const TarMember* caption = index.find(member.name.substr(0, dot) + ".txt");
      members.push_back({archive, member, caption == nullptr ? TarMember() : *caption});
      members_have_captions = members_have_captions && caption != nullptr;
    }
  }

  void read_member(size_t archive, const TarMember& member, uint64_t most, void* target) const {
    if (member.size > most) fail<DataError>(shown(archives[archive]), ": ", printable(member.name), " is too large");
    if (!pool->get(archive)->read_at(member.offset, target, member.size)) {
      fail<DataError>(shown(archives[archive]), ": ends before ", printable(member.name));
    }
  }
};

PictureSet::PictureSet(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PictureSet::PictureSet(PictureSet&&) noexcept = default;
PictureSet& PictureSet::operator=(PictureSet&&) noexcept = default;
PictureSet::~PictureSet() = default;

PictureSet PictureSet::open(const fs::path& where) {
  auto impl = std::make_unique<Impl>();
  impl->where = shown(where);
  std::error_code error;
  if (fs::is_directory(where, error)) {
    if (fs::exists(where / "lst.json", error)) {
      impl->open_list(where / "lst.json");
    } else {
      impl->files = files_of(where, is_picture_name);
      if (impl->files.empty()) {
        const auto tars = files_of(where, [](const std::string& name) { return has_ending(name, ".tar"); });
        if (!tars.empty()) impl->open_archives(tars);
      }
    }
  } else if (!fs::exists(where, error)) {
    fail<DataError>(impl->where, ": is not there");
  } else if (has_ending(where.string(), ".json")) {
    impl->open_list(where);
  } else if (has_ending(where.string(), ".tar")) {
    impl->open_archives({where});
  } else {
    impl->dataset = Dataset::open(where.string());
  }
  if (impl->size() == 0) {
    fail<DataError>(impl->where,
                    ": holds no picture (a folder of pictures or tars, lst.json, a tar or a TSV is expected)");
  }
  return PictureSet(std::move(impl));
}

size_t PictureSet::size() const { return impl_->size(); }

std::string PictureSet::name(size_t picture) const {
  if (impl_->dataset) return impl_->dataset->where(picture);
  if (impl_->members.empty()) return shown(impl_->files.at(picture));
  const Impl::Member& member = impl_->members.at(picture);
  return concat(shown(impl_->archives[member.archive]), ": ", printable(member.picture.name));
}

void PictureSet::read(size_t picture, std::vector<uint8_t>& bytes) const {
  if (impl_->dataset) return impl_->dataset->read_image(picture, bytes);
  if (!impl_->members.empty()) {
    const Impl::Member& member = impl_->members.at(picture);
    bytes.resize(std::min(member.picture.size, kMostPictureBytes));
    return impl_->read_member(member.archive, member.picture, kMostPictureBytes, bytes.data());
  }
  const auto file = FileBytes::open(impl_->files.at(picture), FileBytes::Mode::kRead);
  if (file->size() > kMostPictureBytes) fail<DataError>(name(picture), ": is too large");
  bytes.assign(file->data(), file->data() + file->size());
}

bool PictureSet::has_captions() const {
  return !impl_->captions.empty() || impl_->dataset != nullptr || impl_->members_have_captions;
}

std::string PictureSet::caption(size_t picture) const {
  if (!impl_->captions.empty()) return impl_->captions.at(picture / impl_->each);
  if (impl_->dataset) return std::string(impl_->dataset->caption(picture));
  const Impl::Member& member = impl_->members.at(picture);
  std::string text(std::min(member.caption.size, kMostCaptionBytes), '\0');
  impl_->read_member(member.archive, member.caption, kMostCaptionBytes, text.data());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

void PictureSet::set_captions(std::vector<std::string> captions, const std::string& from) {
  if (captions.empty() || captions.size() > size() || size() % captions.size() != 0) {
    fail<DataError>(impl_->where, ": has ", size(), " pictures, which can't be shared out evenly among the ",
                    captions.size(), " captions of ", printable(from, 1000));
  }
  impl_->each = size() / captions.size();
  impl_->captions = std::move(captions);
}

}  // namespace mdm
