#include "ingest/scrape_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "ingest/shown.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"

namespace mdm::ingest {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kManifestFormat = 1;

Json manifest_of(const ScrapeSettings& settings, const ListIdentity& list) {
  return {{"format", kManifestFormat},
          {"urls_sha256", list.sha256},
          {"urls_bytes", list.bytes},
          {"rows", list.rows},
          {"list_format", static_cast<int>(settings.format.kind)},
          {"url_column", settings.format.url_column},
          {"caption_column", settings.format.caption_column},
          {"quotes", static_cast<int>(settings.format.quotes)},
          {"samples_per_shard", settings.samples_per_shard},
          {"resize", settings.resize_side},
          {"quality", settings.resize_side > 0 ? settings.jpeg_quality : 0}};
}

}  // namespace

WorkerLock::WorkerLock(const ScrapeSettings& settings) {
  const fs::path file = settings.output_dir / concat(".worker_", settings.worker, ".lock");
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(shown(file), ": ", std::generic_category().message(errno));
  const int code = lock_file(descriptor_);
  if (code == 0) return;
  if (code == ENOTSUP) {
    log_warning(shown(settings.output_dir), ": the file system has no locks; two processes must not be worker ",
                settings.worker, " at a time");
    return;
  }
  ::close(descriptor_);
  if (code != EWOULDBLOCK) fail(shown(file), ": can't be locked: ", std::generic_category().message(code));
  fail(shown(settings.output_dir), ": another process works here as worker ", settings.worker);
}

WorkerLock::~WorkerLock() { ::close(descriptor_); }

void check_manifest(const ScrapeSettings& settings, const ListIdentity& list) {
  const fs::path file = settings.output_dir / "scrape.json";
  const Json now = manifest_of(settings, list);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) {
    write_file(file, now.dump(2) + '\n');
    return;
  }
  const Json before = Json::parse(read_text_file(file, size_t{1} << 20), nullptr, /*allow_exceptions=*/false);
  if (!before.is_object()) fail<DataError>(shown(file), ": can't be read");
  std::string changed;
  for (const auto& [name, value] : now.items()) {
    if (before.contains(name) && before.at(name) == value) continue;
    changed += concat(changed.empty() ? "" : ", ", name, " (",
                      before.contains(name) ? before.at(name).dump() : "absent", ", now ", value.dump(), ')');
  }
  if (changed.empty()) return;
  fail<ConfigError>(shown(settings.output_dir),
                    ": holds shards of another list or of other settings: ", printable(changed, 2000),
                    "; choose another --output-dir, or call with what it was begun with");
}

void remove_cut_off(const fs::path& folder, int64_t worker, int64_t workers, bool lists) {
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".tmp.") == std::string::npos) continue;  // as AtomicFile calls what it has not finished
    const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    const bool of_shard = digits >= 5;
    const bool ours = of_shard && std::strtoull(name.c_str(), nullptr, 10) % static_cast<uint64_t>(workers) ==
                                      static_cast<uint64_t>(worker);
    bool of_lists = false;
    for (const char* list : {"index.tsv.", "train.tsv.", "validation.tsv.", "split.json."}) {
      of_lists = of_lists || name.rfind(list, 0) == 0;
    }
    if (lists ? of_lists : ours) left.push_back(entry.path());
  }
  std::error_code ignored;
  for (const fs::path& file : left) fs::remove(file, ignored);
}

void check_space(const ScrapeSettings& settings, uint64_t rows_to_do, const ScrapeCounts& so_far) {
  constexpr uint64_t kEnoughPictures = 100;
  // Means of Conceptual 12M: 130 kB a file as it is; a 256-pixel JPEG of quality 95 has 45 kB.
  double bytes_a_row = settings.resize_side > 0 ? 0.7 * settings.resize_side * settings.resize_side : 130e3;
  if (so_far.pictures >= kEnoughPictures) {
    bytes_a_row =
        static_cast<double>(so_far.picture_bytes) / static_cast<double>(so_far.pictures + so_far.all_failures());
  }
  std::error_code code;
  const auto space = fs::space(settings.output_dir, code);
  if (code) return;  // then writing will tell
  const double wanted = bytes_a_row * static_cast<double>(rows_to_do), there = static_cast<double>(space.available);
  const auto gib = [](double bytes) { return std::round(bytes / 1073741824.0 * 10) / 10; };
  if (wanted > 2 * there) {
    fail(shown(settings.output_dir), ": ", rows_to_do, " pictures take about ", gib(wanted), " GiB, and ", gib(there),
         " GiB are free (--ignore-space goes on all the same)");
  }
  if (wanted > there) {
    log_warning(shown(settings.output_dir), ": ", rows_to_do, " pictures take about ", gib(wanted), " GiB, and ",
                gib(there), " GiB are free");
  }
}

}  // namespace mdm::ingest
