// Worker threads take rows one by one from the batches in a window; next() waits for the window's first batch.
#include "mdm/data/loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "data/threads.h"
#include "mdm/core/error.h"
#include "mdm/core/log.h"
#include "mdm/core/random.h"
#include "mdm/data/image_reader.h"

namespace mdm {
namespace {

constexpr uint64_t kJudgedSamples = 10000;
constexpr uint64_t kSamplesUntilJudged = 100;
constexpr uint64_t kLoggedHoles = 20;
constexpr int64_t kMostBytesAhead = int64_t{256} << 20;
constexpr size_t kMostKeptBytes = size_t{64} << 20;  // of a file, by a thread that has read it
constexpr uint8_t kHoleValue = 127;                  // 0 for the model

}  // namespace

struct Loader::Impl {
  // Why a row is a hole; no kind: it is none.
  struct HoleReason {
    const char* kind = nullptr;
    std::string text;
  };

  // A batch that is being made. Workers write different rows of it.
  struct BatchInWork {
    Batch batch;
    std::vector<PlannedSample> plan;
    std::vector<HoleReason> holes;
    std::vector<char> dropped;
    std::vector<float*> micros;  // of LoaderOptions::micros; null where left out
    float* scale = nullptr;
    size_t taken = 0;  // rows that a worker has
    size_t done = 0;
  };

  TrainingData data;
  LoaderOptions options;
  LoaderCounters counters;
  size_t capacity = 2;
  double waited = 0;

  std::mutex mutex;
  std::condition_variable work;   // there are rows to take, or the end
  std::condition_variable ready;  // the first batch may be done
  std::deque<std::shared_ptr<BatchInWork>> window;
  uint64_t next_batch = 0;  // to be planned; counts slices
  bool stopping = false;
  std::exception_ptr failure;
  std::vector<std::thread> threads;

  ~Impl() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      stopping = true;
    }
    work.notify_all();
    for (auto& thread : threads) thread.join();
  }

  void check();
  void start();
  std::shared_ptr<BatchInWork> plan_batch(uint64_t index) const;
  std::pair<std::shared_ptr<BatchInWork>, size_t> take_row(std::unique_lock<std::mutex>& lock);
  void run_worker();
  void make_row(BatchInWork& in_work, size_t row, std::vector<uint8_t>& bytes) const;
  void read_row(BatchInWork& in_work, size_t row, std::vector<uint8_t>& bytes) const;
  void read_image(BatchInWork& in_work, size_t row, const std::vector<uint8_t>& bytes) const;
  at::Tensor read_embedding(size_t sample) const;
  bool drops_caption(uint64_t number) const;
  void count(const BatchInWork& in_work);
  void judge() const;
};

void Loader::Impl::check() {
  const auto& reader = options.reader;
  if (reader.image_size < 1) fail<ConfigError>("reader_config.image_size must be set for training");
  if (reader.smaller_side_size >= 0 && reader.smaller_side_size < reader.image_size &&
      reader.compat == ReaderCompat::kNone) {
    fail<ConfigError>("reader_config.smaller_side_size = ", reader.smaller_side_size,
                      " is below image_size = ", reader.image_size);
  }
  if (options.slices.empty()) options.slices.push_back({0, data.plan->rows()});
  int64_t most = 1;
  for (const auto& [first, rows] : options.slices) {
    if (first < 0 || rows < 1 || first > data.plan->rows() || rows > data.plan->rows() - first) {
      fail<ConfigError>("rows ", first, " to ", first + rows, " leave the batch of ", data.plan->rows());
    }
    most = std::max(most, rows);
  }
  const auto text = options.embeddings ? static_cast<int64_t>(data.dataset->largest_embedding_bytes()) : 0;
  const int64_t bytes = most * (reader.image_size * reader.image_size * 3 + text);
  const int64_t ahead = std::min(reader.reader_buffer_size, kMostBytesAhead / bytes);
  capacity = static_cast<size_t>(std::max<int64_t>(ahead, 2));
  next_batch = options.start_step * options.slices.size();
}

void Loader::Impl::start() {
  const auto machine = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  const int64_t count = std::clamp<int64_t>(options.reader.num_readers, 1, machine);
  detail::add_threads(threads, count, [this] { run_worker(); });
  if (threads.empty()) fail("the system gives no thread to read images");
}

std::shared_ptr<Loader::Impl::BatchInWork> Loader::Impl::plan_batch(uint64_t index) const {
  const LoaderSlice& slice = options.slices[index % options.slices.size()];
  auto in_work = std::make_shared<BatchInWork>();
  Batch& batch = in_work->batch;
  batch.step = index / options.slices.size();
  batch.first_row = slice.first_row;
  batch.total_rows = data.plan->rows();
  batch.token_length = data.plan->token_length(batch.step);
  in_work->plan = data.plan->slice(batch.step, slice.first_row, slice.rows);
  const int64_t rows = slice.rows;
  const int64_t side = options.reader.image_size;
  batch.images = at::empty({rows, side, side, 3}, at::TensorOptions().dtype(at::kByte));
  batch.weights = at::ones({rows}, at::TensorOptions().dtype(at::kFloat));
  batch.captions.resize(static_cast<size_t>(rows));
  for (const auto& planned : in_work->plan) batch.samples.push_back(planned.number);
  in_work->holes.resize(static_cast<size_t>(rows));
  in_work->dropped.resize(static_cast<size_t>(rows));
  if (options.embeddings) batch.embeddings.resize(static_cast<size_t>(rows));
  const auto add_micro = [&](const std::string& name, double value) {
    return (batch.micros[name] = at::full({rows}, value, at::TensorOptions().dtype(at::kFloat))).data_ptr<float>();
  };
  in_work->scale = add_micro("scale", static_cast<double>(side));
  for (const auto& item : options.micros) {
    const bool given = item.name != "scale" && data.dataset->has_number(item.name);
    in_work->micros.push_back(given ? add_micro(item.name, item.default_value) : nullptr);
  }
  return in_work;
}

// The next row that nobody has, of the window or of one batch more; null at the end.
std::pair<std::shared_ptr<Loader::Impl::BatchInWork>, size_t> Loader::Impl::take_row(
    std::unique_lock<std::mutex>& lock) {
  while (!stopping) {
    if (!window.empty() && window.back()->taken < window.back()->plan.size()) {
      return {window.back(), window.back()->taken++};
    }
    if (window.size() < capacity) {
      window.push_back(plan_batch(next_batch++));
    } else {
      work.wait(lock);
    }
  }
  return {nullptr, 0};
}

void Loader::Impl::run_worker() {
  omp_set_num_threads(1);
  std::vector<uint8_t> bytes;
  std::unique_lock<std::mutex> lock(mutex);
  try {
    while (true) {
      const auto [in_work, row] = take_row(lock);
      if (!in_work) return;
      lock.unlock();
      make_row(*in_work, row, bytes);
      lock.lock();
      if (++in_work->done == in_work->plan.size()) ready.notify_all();
    }
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    if (!failure) failure = std::current_exception();
    stopping = true;
    ready.notify_all();
    work.notify_all();
  }
}

bool Loader::Impl::drops_caption(uint64_t number) const {
  const auto& reader = options.reader;
  if (reader.compat == ReaderCompat::kMlx || reader.caption_dropout <= 0) return false;
  RandomAddress address;
  address.seed = options.seed;
  address.sample = number;
  address.stream = RandomStream::kCaptionDropout;
  float uniform = 0;
  random_uniform(address, 0, &uniform, 1);
  return static_cast<double>(uniform) < reader.caption_dropout;
}

// Faults of the sample make a hole; others leave.
void Loader::Impl::make_row(BatchInWork& in_work, size_t row, std::vector<uint8_t>& bytes) const {
  HoleReason& hole = in_work.holes[row];
  try {
    read_row(in_work, row, bytes);
    hole.kind = nullptr;
  } catch (const DataError& fault) {
    hole.text = fault.what();
  }
  if (bytes.capacity() > kMostKeptBytes) std::vector<uint8_t>().swap(bytes);
  if (hole.kind == nullptr) return;
  Batch& batch = in_work.batch;
  const auto size = static_cast<size_t>(batch.images.stride(0));
  std::memset(batch.images.data_ptr<uint8_t>() + row * size, kHoleValue, size);
  batch.weights.data_ptr<float>()[row] = 0;
  batch.captions[row].clear();
  in_work.dropped[row] = 0;
  in_work.scale[row] = static_cast<float>(options.reader.image_size);
  if (options.embeddings) batch.embeddings[row] = at::Tensor();
  for (size_t i = 0; i < in_work.micros.size(); ++i) {
    if (in_work.micros[i] != nullptr) in_work.micros[i][row] = static_cast<float>(options.micros[i].default_value);
  }
}

// Sets the hole's kind before each part that may fail.
void Loader::Impl::read_row(BatchInWork& in_work, size_t row, std::vector<uint8_t>& bytes) const {
  const Dataset& dataset = *data.dataset;
  const PlannedSample& planned = in_work.plan[row];
  Batch& batch = in_work.batch;
  const char*& kind = in_work.holes[row].kind;
  const bool dropped = drops_caption(planned.number);
  in_work.dropped[row] = dropped ? 1 : 0;
  if (!dropped) {
    kind = "label";
    const std::string_view caption = data.captions->text(dataset, planned.sample);
    if (options.knows_caption && !options.knows_caption(caption)) {
      fail<DataError>(dataset.where(planned.sample), ": the caption \"", printable(caption), "\" is not a known label");
    }
    batch.captions[row] = caption;
  }
  kind = "file";
  dataset.read_image(planned.sample, bytes);
  kind = "image";
  read_image(in_work, row, bytes);
  kind = "embedding";
  if (options.embeddings && !dropped) batch.embeddings[row] = read_embedding(planned.sample);
  for (size_t i = 0; i < in_work.micros.size(); ++i) {
    if (in_work.micros[i] == nullptr) continue;
    const float value = dataset.number(options.micros[i].name, planned.sample);
    if (!std::isnan(value)) in_work.micros[i][row] = value;
  }
}

void Loader::Impl::read_image(BatchInWork& in_work, size_t row, const std::vector<uint8_t>& bytes) const {
  const PlannedSample& planned = in_work.plan[row];
  const TrainingImage read =
      read_training_image(bytes.data(), bytes.size(), data.dataset->where(planned.sample), options.reader,
                          choose_crop(options.reader, options.seed, planned.number));
  in_work.scale[row] = static_cast<float>(read.smaller_side);
  const auto size = static_cast<size_t>(in_work.batch.images.stride(0));
  uint8_t* target = in_work.batch.images.data_ptr<uint8_t>() + row * size;
  const auto channels = static_cast<size_t>(read.image.channels);
  if (channels == 3) {
    std::memcpy(target, read.image.pixels.data(), size);
    return;
  }
  std::memset(target, 0, size);  // compat alone
  for (size_t i = 0; i < size / 3; ++i) std::copy_n(read.image.pixels.data() + i * channels, channels, target + 3 * i);
}

at::Tensor Loader::Impl::read_embedding(size_t sample) const {
  const at::Tensor embedding = data.dataset->read_embedding(sample);  // (L, D)
  if (options.embedding_width >= 0 && embedding.size(1) != options.embedding_width) {
    fail<DataError>("embedding of ", data.dataset->where(sample), ": is ", embedding.size(1), " wide, not ",
                    options.embedding_width);
  }
  const auto* values = embedding.const_data_ptr<float>();
  if (!std::all_of(values, values + embedding.numel(), [](float value) { return std::isfinite(value); })) {
    fail<DataError>("embedding of ", data.dataset->where(sample), ": holds values that are not finite");
  }
  return embedding;
}

void Loader::Impl::count(const BatchInWork& in_work) {
  for (size_t row = 0; row < in_work.holes.size(); ++row) {
    const uint64_t position = counters.samples++;
    counters.dropped_captions += static_cast<uint64_t>(in_work.dropped[row]);
    const HoleReason& hole = in_work.holes[row];
    if (hole.kind == nullptr) continue;
    if (counters.all_holes() < kLoggedHoles) log_warning("broken sample (", hole.kind, "): ", hole.text);
    ++counters.holes[hole.kind];
    counters.recent_holes.push_back(position);
  }
  auto& recent = counters.recent_holes;
  const uint64_t oldest = counters.samples > kJudgedSamples ? counters.samples - kJudgedSamples : 0;
  recent.erase(recent.begin(), std::lower_bound(recent.begin(), recent.end(), oldest));
}

void Loader::Impl::judge() const {
  if (counters.samples < kSamplesUntilJudged) return;
  const auto seen = static_cast<double>(std::min(counters.samples, kJudgedSamples));
  const double allowed = options.reader.max_bad_fraction * seen;
  const double chance = counters.samples < kJudgedSamples ? 3 * std::sqrt(allowed) : 0;
  if (static_cast<double>(counters.recent_holes.size()) <= allowed + chance) return;
  std::string kinds;
  for (const auto& [kind, number] : counters.holes) kinds += concat(kinds.empty() ? "" : ", ", kind, " ", number);
  fail<DataError>(counters.recent_holes.size(), " of the last ", static_cast<uint64_t>(seen),
                  " samples could not be read (since the start: ", kinds,
                  "), more than reader_config.max_bad_fraction = ", options.reader.max_bad_fraction,
                  " allows; the first ", kLoggedHoles, " are in the log");
}

Loader::Loader(TrainingData data, LoaderOptions options, LoaderCounters counters) : impl_(std::make_unique<Impl>()) {
  impl_->data = std::move(data);
  impl_->options = std::move(options);
  impl_->counters = std::move(counters);
  impl_->check();
  impl_->start();
}

Loader::~Loader() = default;

Batch Loader::next() {
  Impl& impl = *impl_;
  std::shared_ptr<Impl::BatchInWork> first;
  const auto start = std::chrono::steady_clock::now();
  {
    std::unique_lock<std::mutex> lock(impl.mutex);
    impl.ready.wait(lock, [&] {
      return impl.failure || (!impl.window.empty() && impl.window.front()->done == impl.window.front()->plan.size());
    });
    if (impl.failure) std::rethrow_exception(impl.failure);
    first = std::move(impl.window.front());
    impl.window.pop_front();
  }
  impl.work.notify_all();
  impl.waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  impl.count(*first);
  impl.judge();
  return std::move(first->batch);
}

const LoaderCounters& Loader::counters() const { return impl_->counters; }
double Loader::wait_seconds() const { return impl_->waited; }

TrainingData open_training_data(const std::string& list, const ReaderConfig& reader, const Tokenizer* tokenizer,
                                uint64_t seed, int64_t rows, DatasetOptions options) {
  options.mlx = reader.compat == ReaderCompat::kMlx;
  options.max_bad_fraction = reader.max_bad_fraction;
  options.max_open_files = reader.num_kept_files;
  TrainingData data;
  data.dataset = Dataset::open(list, options);
  data.captions = std::make_shared<const CaptionTable>(CaptionTable::make(*data.dataset, tokenizer, reader));
  data.plan = std::make_shared<const BatchPlan>(*data.captions, reader, seed, rows);
  log_info(printable(list, 1000), ": ", data.plan->samples(), " samples; long captions: ", data.captions->dropped(),
           " samples left out, ", data.captions->truncated(), " captions cut");
  return data;
}

}  // namespace mdm
