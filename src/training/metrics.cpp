#include "mdm/training/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <system_error>

#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/core/log.h"
#include "mdm/media/png.h"
#include "training/event_file.h"

namespace mdm {
namespace events {

constexpr size_t kMostBuffered = size_t{1} << 20;

// A file that grows at its end. The first failed write is logged and is the last one.
class GrowingFile {
 public:
  GrowingFile() = default;
  ~GrowingFile() {
    flush();
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  GrowingFile(const GrowingFile&) = delete;
  GrowingFile& operator=(const GrowingFile&) = delete;

  // Flags beside O_WRONLY | O_CREAT; false when a file that must be new is there already.
  bool open(const std::filesystem::path& path, int flags) {
    path_ = path;
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644);
    if (descriptor_ < 0 && errno == EEXIST) return false;
    if (descriptor_ < 0) give_up();
    return true;
  }

  void write(std::string_view bytes) {
    if (failed_) return;
    buffer_ += bytes;
    if (buffer_.size() >= kMostBuffered) flush();
  }

  void flush() {
    size_t done = 0;
    while (!failed_ && done < buffer_.size()) {
      const ssize_t put = ::write(descriptor_, buffer_.data() + done, buffer_.size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) {
        give_up();
      } else {
        done += static_cast<size_t>(put);
      }
    }
    buffer_.clear();
  }

  bool failed() const { return failed_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  void give_up() {
    log_warning(printable(path_.string(), 1000), ": can't be written (", std::generic_category().message(errno),
                "); the run goes on without it");
    failed_ = true;
    buffer_ = {};
  }

  std::filesystem::path path_;
  int descriptor_ = -1;
  bool failed_ = false;
  std::string buffer_;
};

}  // namespace events

namespace {

constexpr const char* kLinesName = "metrics.jsonl";

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Whether a line of metrics.jsonl stays when a run goes on from `first_step`. Lines of another kind stay.
bool stays(std::string_view line, int64_t first_step) {
  const auto values = nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!values.is_object()) return !values.is_discarded();
  const auto step = values.find("step");
  return step == values.end() || !step->is_number_integer() || step->get<int64_t>() < first_step;
}

// Drops the lines of `first_step` and later, and what a crash has left of a line.
void cut_lines(const std::filesystem::path& path, int64_t first_step) {
  std::error_code code;
  if (!std::filesystem::exists(path, code)) return;
  const auto file = FileBytes::open(path);
  const std::string_view text = file->view();
  std::string kept;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;
    const auto line = text.substr(begin, end + 1 - begin);
    if (stays(line, first_step)) kept += line;
    begin = end + 1;
  }
  if (kept.size() != text.size()) write_file(path, kept);
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "localhost";
  for (char& c : name) {
    if (c == '/') c = '_';
  }
  return name;
}

}  // namespace

struct MetricsWriter::Impl {
  double flush_seconds = 10;
  events::GrowingFile events, lines;
  std::chrono::steady_clock::time_point flushed = std::chrono::steady_clock::now();

  // A new file: TensorBoard reads those of a folder in the order of their names.
  void open_events(const std::filesystem::path& folder) {
    const auto second = static_cast<int64_t>(seconds_since_1970());
    for (int number = 0;; ++number) {
      char prefix[64];
      std::snprintf(prefix, sizeof prefix, "events.out.tfevents.%010lld.%04d.", static_cast<long long>(second), number);
      if (events.open(folder / concat(prefix, host_name(), ".", ::getpid()), O_EXCL)) return;
    }
  }

  void event(const std::string& message) {
    events.write(events::framed(message));
    const auto now = std::chrono::steady_clock::now();
    if (std::chrono::duration<double>(now - flushed).count() >= flush_seconds) flush();
  }

  void flush() {
    events.flush();
    lines.flush();
    flushed = std::chrono::steady_clock::now();
  }
};

MetricsWriter::MetricsWriter(const MetricsOptions& options) : impl_(new Impl) {
  std::error_code code;
  std::filesystem::create_directories(options.folder, code);
  if (!std::filesystem::is_directory(options.folder, code)) {
    fail(printable(options.folder.string(), 1000), ": is no folder and can't be made");
  }
  impl_->flush_seconds = options.flush_seconds;
  const auto lines = options.folder / kLinesName;
  try {
    cut_lines(lines, options.first_step);
  } catch (const Error& error) {
    log_warning(error.what(), "; its lines from step ", options.first_step, " on stay");
  }
  impl_->lines.open(lines, O_APPEND);
  impl_->open_events(options.folder);
  impl_->event(events::file_version(seconds_since_1970()));
  impl_->event(events::session_start(seconds_since_1970(), options.first_step));
}

MetricsWriter::~MetricsWriter() = default;

void MetricsWriter::scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  const double time = seconds_since_1970();
  nlohmann::ordered_json line;
  line["step"] = step;
  line["time"] = std::round(time * 1000) / 1000;
  for (const auto& [name, value] : values) line[name] = value;  // JSON has null for what is not finite
  impl_->lines.write(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  impl_->event(events::scalars(time, step, values));
}

void MetricsWriter::image(int64_t step, std::string_view tag, const Image& image) {
  try {
    impl_->event(events::image(seconds_since_1970(), step, tag, image, encode_png(image)));
  } catch (const Error& error) {
    log_warning("picture '", printable(tag), "' is not written: ", error.what());
  }
}

void MetricsWriter::text(int64_t step, std::string_view tag, std::string_view text) {
  impl_->event(events::text(seconds_since_1970(), step, tag, text));
}

void MetricsWriter::hparams(const std::map<std::string, HparamValue>& values, const std::vector<std::string>& metrics) {
  for (const std::string& message : events::hparams(seconds_since_1970(), values, metrics)) impl_->event(message);
}

void MetricsWriter::flush() { impl_->flush(); }
bool MetricsWriter::failed() const { return impl_->events.failed() || impl_->lines.failed(); }
const std::filesystem::path& MetricsWriter::event_file() const { return impl_->events.path(); }

}  // namespace mdm
