// From a list to a data set: lists are read in their order first, then archives are indexed by several threads, and
// at last the samples that exist are put together.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <limits>
#include <thread>

#include "data/dataset_rows.h"
#include "data/threads.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/data/tar.h"
#include "mdm/data/tsv.h"
#include "mdm/net/http_client.h"
#include "mdm/net/s3.h"

namespace mdm {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kLoggedBadRows = 20;
constexpr uint64_t kRowsUntilJudged = 100;

bool ends_in_tar(std::string_view name) { return name.size() >= 4 && name.substr(name.size() - 4) == ".tar"; }

// Where a list came from: names in it may be relative to this.
struct ListPlace {
  std::string url_folder;  // "https://host/folder/"; empty for local lists
  fs::path folder;
};

}  // namespace

class DatasetBuilder {
 public:
  explicit DatasetBuilder(const DatasetOptions& options) : options_(options), set_(new Dataset), impl_(*set_->impl_) {}

  std::shared_ptr<const Dataset> build(const std::string& list) {
    read_list(list);
    resolve_members();
    assemble();
    judge(list);
    impl_.pool = std::make_unique<detail::ArchivePool>(paths_, options_.max_open_files);
    return set_;
  }

 private:
  // Rows of one shard, or a webdataset archive.
  struct Section {
    bool web = false;
    uint32_t archive = 0;
    size_t first = 0, last = 0;  // of rows_
  };
  // The archive that a column named last: rows that follow each other mostly name the same.
  struct LastArchive {
    std::string name;
    uint32_t archive = 0;
    bool known = false;
  };
  // A row of a shard whose members are still to be found.
  struct Wanted {
    DatasetRow row;
    uint64_t line = 0;
    MemberPlace embedding;
    uint64_t embedding_text = 0;  // in embedding_names_
    uint32_t embedding_bytes = 0;
  };

  void bad_row(const char* kind, const std::string& text) {
    ++impl_.bad_rows[kind];
    if (bad_rows_++ < kLoggedBadRows) log_warning("left out: ", text);
  }

  // ---- names ----

  fs::path local(const std::string& name, const ListPlace& list, std::string* url) {
    if (name.empty()) fail<DataError>("a list names a file \"\"");
    const bool by_url = is_url(name) || (!list.url_folder.empty() && name[0] != '/' && !file_url_path(name));
    if (by_url) {
      const std::string whole = is_url(name) ? name : list.url_folder + name;
      if (!options_.resolve_url) {
        fail<DataError>(printable(whole, 1000), ": this program can't read from the network; load the file and name ",
                        "the local copy");
      }
      if (url != nullptr) *url = whole;
      return options_.resolve_url(whole);
    }
    const fs::path here = file_url_path(name).value_or(fs::path(name));
    std::error_code ignored;
    if (here.is_absolute() || list.folder.empty()) return here;
    const fs::path beside = list.folder / here;
    if (!fs::exists(beside, ignored)) return here;
    if (!fs::exists(here, ignored)) return beside;
    if (!ambiguous_ && !fs::equivalent(here, beside, ignored)) {  // names such as 00000.tar are in many folders
      ambiguous_ = true;
      log_warning(printable(name, 1000), ": is in the working directory and beside its list (",
                  printable(list.folder.string(), 1000), "); the one in the working directory is taken");
    }
    return here;
  }

  uint32_t archive_of(const std::string& name, const ListPlace& list) {
    const std::string key = concat(list.url_folder, '\n', list.folder.string(), '\n', name);
    const auto [found, added] = archive_numbers_.try_emplace(key, static_cast<uint32_t>(paths_.size()));
    if (added) {
      paths_.push_back(local(name, list, nullptr));
      impl_.archives.push_back(name);
    }
    return found->second;
  }

  // ---- lists ----

  void read_list(const std::string& list) {
    std::error_code ignored;
    if (fs::is_directory(list, ignored)) return read_folder(list);
    if (ends_in_tar(list)) return add_web(list, {});
    std::string url;
    const fs::path file = local(list, {}, &url);
    const ListPlace place = place_of(url, file);
    const auto bytes = FileBytes::open(file, FileBytes::Mode::kRead);
    TsvReader reader(bytes->view(), list);
    if (reader.find("filename") < 0 && reader.find("tar") >= 0) return read_shard(reader, place);
    read_index(reader, list, place);
  }

  static ListPlace place_of(const std::string& url, const fs::path& file) {
    if (url.empty()) return {"", file.parent_path()};
    const std::string path = is_s3_url(url) ? url : url.substr(0, url.find_first_of("?#"));
    return {path.substr(0, path.rfind('/') + 1), {}};
  }

  void read_folder(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (entry.is_regular_file() && ends_in_tar(entry.path().string())) names.push_back(entry.path().string());
    }
    if (names.empty()) fail<DataError>(printable(folder, 1000), ": there is no .tar file in this folder");
    std::sort(names.begin(), names.end());
    for (const auto& name : names) add_web(name, {});
  }

  void add_web(const std::string& name, const ListPlace& place) {
    if (options_.embeddings) {
      fail<DataError>(printable(name, 1000),
                      ": webdataset archives have no columns text_tar and text_file, which name ",
                      "the embeddings; list the samples in a shard TSV that has them");
    }
    Section section;
    section.web = true;
    section.archive = archive_of(name, place);
    sections_.push_back(section);
  }

  void read_index(TsvReader& reader, const std::string& list, const ListPlace& place) {
    if (reader.find("filename") < 0) {
      reader.require("tar");  // fails, and says what there is
    }
    const size_t column = reader.require("filename");
    std::vector<std::string> fields;
    bool any = false;
    for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
      if (result == TsvReader::Result::kBad) fail<DataError>(reader.problem());
      any = true;
      if (ends_in_tar(fields[column])) {
        add_web(fields[column], place);
        continue;
      }
      std::string url;
      const fs::path file = local(fields[column], place, &url);
      const auto bytes = FileBytes::open(file, FileBytes::Mode::kRead);
      TsvReader shard(bytes->view(), file.string());
      read_shard(shard, place_of(url, file), url.empty() ? &place : nullptr);
    }
    if (!any) fail<DataError>(printable(list, 1000), ": names no shard");
  }

  // `index`: where the list of this shard lies; archives may lie beside it too.
  void read_shard(TsvReader& reader, const ListPlace& place, const ListPlace* index = nullptr) {
    const size_t tar = reader.require("tar"), file = reader.require("file"), caption = reader.require("caption");
    const bool embeds = options_.embeddings;
    const size_t text_tar = embeds ? reader.require("text_tar") : 0;
    const size_t text_file = embeds ? reader.require("text_file") : 0;
    std::vector<int> columns;
    for (const auto& name : options_.numbers) columns.push_back(reader.find(name));
    Section section;
    section.first = rows_.size();
    std::vector<std::string> fields;
    LastArchive last_tar, last_text_tar;
    for (auto result = reader.next(fields); result != TsvReader::Result::kEnd; result = reader.next(fields)) {
      if (result == TsvReader::Result::kBad) {
        if (options_.mlx) fail<DataError>(reader.problem());
        bad_row("line", reader.problem());
        continue;
      }
      Wanted row;
      row.line = reader.line();
      row.row.image.archive = shard_archive(fields[tar], place, index, last_tar);
      add_texts(row.row, fields[file], fields[caption]);
      if (embeds) {
        row.embedding.archive = shard_archive(fields[text_tar], place, index, last_text_tar);
        row.embedding_text = embedding_names_.size();
        row.embedding_bytes = static_cast<uint32_t>(fields[text_file].size());
        embedding_names_ += fields[text_file];
      }
      for (size_t i = 0; i < columns.size(); ++i) {
        raw_numbers_.push_back(columns[i] < 0 ? kNone : number_of(fields[static_cast<size_t>(columns[i])]));
      }
      rows_.push_back(row);
    }
    section.last = rows_.size();
    sections_.push_back(section);
  }

  uint32_t shard_archive(const std::string& name, const ListPlace& place, const ListPlace* index, LastArchive& last) {
    if (last.known && name == last.name) return last.archive;
    std::error_code ignored;
    const bool beside_index = index != nullptr && index->url_folder.empty() && !is_url(name) &&
                              !fs::exists(name, ignored) && !fs::exists(place.folder / name, ignored) &&
                              fs::exists(index->folder / name, ignored);
    last = {name, archive_of(name, beside_index ? *index : place), true};
    return last.archive;
  }

  void add_texts(DatasetRow& row, std::string_view file, std::string_view caption) {
    row.text = impl_.texts.size();
    row.file_bytes = static_cast<uint32_t>(file.size());
    row.caption_bytes = static_cast<uint32_t>(caption.size());
    impl_.texts.append(file);
    impl_.texts.append(caption);
  }

  // ---- archives ----

  // What a row wants of an archive: row * 2, + 1 for its embedding.
  std::vector<std::vector<uint64_t>> wanted_by_archive() const {
    std::vector<std::vector<uint64_t>> wanted(paths_.size());
    for (size_t i = 0; i < rows_.size(); ++i) {
      wanted[rows_[i].row.image.archive].push_back(2 * i);
      if (options_.embeddings) wanted[rows_[i].embedding.archive].push_back(2 * i + 1);
    }
    return wanted;
  }

  void resolve_members() {
    if (rows_.size() > UINT32_MAX) fail<DataError>("more than 4,294,967,295 samples");
    web_.resize(paths_.size());
    std::vector<char> is_web(paths_.size(), 0);
    for (const Section& section : sections_) {
      if (section.web) is_web[section.archive] = 1;
    }
    const auto wanted = wanted_by_archive();
    std::vector<std::exception_ptr> errors(paths_.size());
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t a = next++; a < paths_.size(); a = next++) {
        try {
          resolve_archive(static_cast<uint32_t>(a), wanted[a], is_web[a] != 0);
        } catch (...) {
          errors[a] = std::current_exception();
        }
      }
    };
    const auto machine = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    const int64_t threads = options_.threads > 0 ? options_.threads : std::min(machine, 16);
    detail::run_on_threads(std::min(threads, static_cast<int64_t>(paths_.size())), work);
    for (const auto& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  }

  void resolve_archive(uint32_t archive, const std::vector<uint64_t>& wanted, bool is_web) {
    const detail::ArchiveFile file(paths_[archive]);
    const std::string& name = impl_.archives[archive];
    const TarIndex index = TarIndex::build(
        [&](uint64_t offset, void* target, size_t count) { return file.read_at(offset, target, count); }, file.size(),
        name);
    if (index.members().empty()) fail<DataError>(printable(name, 1000), ": the archive holds no file");
    if (options_.mlx && !index.ended()) {
      fail<DataError>(index.problem().empty() ? printable(name, 1000) + ": the archive has no end mark"
                                              : index.problem());
    }
    if (!index.problem().empty()) log_warning(index.problem(), "; what lies before it is used");
    for (const uint64_t want : wanted) find_member(index, want);
    if (is_web) web_[archive] = read_webdataset(index, file, archive, name, options_.numbers);
  }

  // Each row is touched by one thread for its image and one for its embedding: different fields.
  void find_member(const TarIndex& index, uint64_t want) {
    Wanted& row = rows_[want / 2];
    const bool embedding = want % 2 == 1;
    const std::string_view name =
        embedding ? std::string_view(embedding_names_).substr(row.embedding_text, row.embedding_bytes)
                  : impl_.file(row.row);
    MemberPlace& place = embedding ? row.embedding : row.row.image;
    const TarMember* member = index.find(name);
    if (member == nullptr) return;
    place.offset = member->offset;
    place.size = member->size > kMostMemberBytes ? kLargeMember : static_cast<uint32_t>(member->size);
  }

  // ---- together ----

  void assemble() {
    for (const Section& section : sections_) {
      if (section.web) {
        for (const auto& [kind, text] : web_[section.archive].bad) bad_row(kind, text);
        for (const WebSample& sample : web_[section.archive].samples) {
          DatasetRow row;
          row.image = sample.image;
          add_texts(row, sample.file, sample.caption);
          append(row, {}, sample.numbers.data());
        }
        continue;
      }
      for (size_t i = section.first; i < section.last; ++i) {
        const Wanted& row = rows_[i];
        const std::string image = problem_of(row.row.image);
        const std::string problem = image.empty() && options_.embeddings ? problem_of(row.embedding) : image;
        if (!problem.empty() && !options_.mlx) {
          bad_row("member",
                  concat(printable(impl_.archives[row.row.image.archive], 1000), ": ", printable(impl_.file(row.row)),
                         image.empty() ? ": its embedding: " : ": ", problem));
          continue;
        }
        append(row.row, row.embedding, raw_numbers_.data() + i * options_.numbers.size());
      }
    }
    for (auto column = impl_.numbers.begin(); column != impl_.numbers.end();) {
      const auto& values = column->second;
      const bool any = std::any_of(values.begin(), values.end(), [](float v) { return !std::isnan(v); });
      column = any ? std::next(column) : impl_.numbers.erase(column);
    }
    impl_.rows.shrink_to_fit();
  }

  void append(const DatasetRow& row, const MemberPlace& embedding, const float* numbers) {
    impl_.rows.push_back(row);
    if (options_.embeddings) {
      impl_.embeddings.push_back(embedding);
      if (problem_of(embedding).empty()) {
        impl_.largest_embedding = std::max<size_t>(impl_.largest_embedding, embedding.size);
      }
    }
    for (size_t i = 0; i < options_.numbers.size(); ++i) impl_.numbers[options_.numbers[i]].push_back(numbers[i]);
  }

  void judge(const std::string& list) const {
    if (!impl_.bad_rows.empty()) log_warning(printable(list, 1000), ": left out ", bad_rows_, " rows: ", kinds());
    if (impl_.rows.empty()) {
      fail<DataError>(printable(list, 1000), ": has no sample that can be used", bad_rows_ > 0 ? "; bad rows: " : "",
                      kinds());
    }
    const uint64_t all = impl_.rows.size() + bad_rows_;
    if (all >= kRowsUntilJudged &&
        static_cast<double>(bad_rows_) > options_.max_bad_fraction * static_cast<double>(all)) {
      fail<DataError>(printable(list, 1000), ": ", bad_rows_, " of ", all, " rows are bad (", kinds(),
                      "), more than max_bad_fraction = ", options_.max_bad_fraction, " allows");
    }
  }

  std::string kinds() const {
    std::string text;
    for (const auto& [kind, count] : impl_.bad_rows) text += concat(text.empty() ? "" : ", ", kind, " ", count);
    return text;
  }

  static constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

  const DatasetOptions& options_;
  std::shared_ptr<Dataset> set_;
  Dataset::Impl& impl_;
  std::vector<fs::path> paths_;  // of archives
  std::map<std::string, uint32_t> archive_numbers_;
  std::vector<Section> sections_;
  std::vector<Wanted> rows_;
  std::string embedding_names_;
  std::vector<float> raw_numbers_;  // as many as options_.numbers for each of rows_
  std::vector<WebSamples> web_;
  uint64_t bad_rows_ = 0;
  bool ambiguous_ = false;  // a name was, and the user has been told
};

std::shared_ptr<const Dataset> Dataset::open(const std::string& list, const DatasetOptions& options) {
  return DatasetBuilder(options).build(list);
}

}  // namespace mdm
