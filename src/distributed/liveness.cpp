#include "distributed/liveness.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "distributed/rendezvous.h"
#include "mdm/core/error.h"

namespace mdm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kBeat = std::chrono::milliseconds(1000);
constexpr auto kSilence = std::chrono::milliseconds(2500);    // two beats: who hasn't moved by then is not there
constexpr auto kDiagnosis = std::chrono::milliseconds(8000);  // a store that takes longer is gone itself
constexpr auto kEndByItself = std::chrono::seconds(15);       // after a failure elsewhere, or a collective's time-out

std::string beat_key(int64_t rank) { return concat("beat/", rank); }

}  // namespace

struct Liveness::State {
  c10::intrusive_ptr<c10d::Store> store;
  Options options;

  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stop = false, beating = true;
  std::string place = "the start";
  std::optional<std::string> last_words;  // to be told to the others
  std::string failure;                    // that was told, or what is wrong with the store
  std::optional<Clock::time_point> failed_at;
  Question asked = Question::kNone;
  std::optional<std::string> answer;
  std::string waiting_for;
  std::optional<Clock::time_point> waiting_since;
  uint64_t beats = 0;
  Clock::time_point last_beat = Clock::now();  // when the store last had this process's

  std::vector<std::string> all_beats() const;
  std::string answer_to(Question question);
  void show_sign_of_life();
  std::string silent_store() const;
};

std::string Liveness::State::silent_store() const {
  return concat("the store of the processes gives no answer, and so rank 0 on ", options.hosts.at(0), " doesn't");
}

std::vector<std::string> Liveness::State::all_beats() const {
  std::vector<std::string> all;
  for (int64_t rank = 0; rank < options.world_size; ++rank) {
    const std::string key = beat_key(rank);
    std::string value;
    if (store->check({key})) {
      const std::vector<uint8_t> bytes = store->get(key);
      value.assign(bytes.begin(), bytes.end());
    }
    all.push_back(value);
  }
  return all;
}

void Liveness::State::show_sign_of_life() {
  std::string value;
  std::optional<std::string> words;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    value = concat(++beats, " ", place);
    words = last_words;
  }
  if (words) Rendezvous::set_failure(*store, *words);
  store->set(beat_key(options.rank), std::vector<uint8_t>(value.begin(), value.end()));
  const std::string told = Rendezvous::failure(*store);
  const std::lock_guard<std::mutex> lock(mutex);
  last_beat = Clock::now();
  if (words) last_words.reset();
  if (!told.empty() && failure.empty()) {
    failure = told;
    failed_at = Clock::now();
  }
  changed.notify_all();
}

// Reads all signs of life twice.
std::string Liveness::State::answer_to(Question question) {
  const std::vector<std::string> before = all_beats();
  std::this_thread::sleep_for(kSilence);
  show_sign_of_life();
  const std::vector<std::string> after = all_beats();
  std::string text;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    text = failure;
  }
  const auto place_of = [](const std::string& value) { return value.substr(std::min(value.find(' '), value.size())); };
  for (int64_t rank = 0; rank < options.world_size; ++rank) {
    const auto i = static_cast<size_t>(rank);
    if (rank == options.rank) continue;
    const bool silent = before[i] == after[i];
    const bool elsewhere =
        question == Question::kWhatIsWrong && place_of(after[i]) != place_of(after[static_cast<size_t>(options.rank)]);
    if (!silent && !elsewhere) continue;
    text += concat(text.empty() ? "" : "; ", silent ? "no sign of life from rank " : "rank ", rank, " on ",
                   options.hosts[i], silent ? ", last seen at" : " is at", printable(place_of(after[i])));
  }
  return text;
}

void Liveness::beat(const std::shared_ptr<State>& state) {
  try {
    for (;;) {
      state->show_sign_of_life();
      Question asked = Question::kNone;
      {
        std::unique_lock<std::mutex> lock(state->mutex);
        state->changed.wait_for(lock, kBeat,
                                [&] { return state->stop || state->asked != Question::kNone || state->last_words; });
        if (state->stop && !state->last_words) break;
        asked = std::exchange(state->asked, Question::kNone);
      }
      if (asked == Question::kNone) continue;
      std::string text = state->answer_to(asked);
      const std::lock_guard<std::mutex> lock(state->mutex);
      state->answer = std::move(text);
      state->changed.notify_all();
    }
  } catch (const std::exception&) {
    const std::lock_guard<std::mutex> lock(state->mutex);
    if (state->failure.empty() && !state->stop) {
      state->failure = concat("the store of the processes is gone, and with it rank 0 on ", state->options.hosts.at(0));
      state->failed_at = Clock::now();
    }
  }
  const std::lock_guard<std::mutex> lock(state->mutex);
  state->beating = false;
  state->changed.notify_all();
}

void Liveness::watch(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mutex);
  while (!state->stop) {
    state->changed.wait_for(lock, kBeat, [&] { return state->stop; });
    if (state->stop) return;
    const auto now = Clock::now();
    std::string why;
    if (state->failed_at && now - *state->failed_at > kEndByItself) {
      why = state->failure.empty() ? concat(state->waiting_for, " at ", state->place, " has failed") : state->failure;
    } else if (state->waiting_since && now - *state->waiting_since > state->options.collective_timeout + kEndByItself) {
      // Nobody can be asked from here; but a store that is silent, too, says who it is.
      const bool silent = now - state->last_beat > kSilence + kBeat;
      why =
          concat("rank ", state->options.rank, " on ",
                 state->options.hosts.at(static_cast<size_t>(state->options.rank)), " at ", state->place, ": ",
                 state->waiting_for, " failed: it doesn't end", silent ? "; " + state->silent_store() : std::string());
    }
    if (why.empty()) continue;
    lock.unlock();
    state->options.on_stuck(why);
    return;
  }
}

Liveness::Liveness(c10::intrusive_ptr<c10d::Store> store, const Options& options) : state_(std::make_shared<State>()) {
  state_->store = std::move(store);
  state_->options = options;
  std::thread(beat, state_).detach();
  if (options.on_stuck) std::thread(watch, state_).detach();
}

Liveness::~Liveness() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->stop = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, 2 * kBeat, [&] { return !state_->beating; });
}

void Liveness::set_place(const std::string& place) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  state_->place = place;
}

std::string Liveness::place() const {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->place;
}

Liveness::Waiting::Waiting(Liveness& liveness, const std::string& what) : liveness_(liveness) {
  const std::lock_guard<std::mutex> lock(liveness_.state_->mutex);
  liveness_.state_->waiting_for = what;
  liveness_.state_->waiting_since = Clock::now();
}

Liveness::Waiting::~Waiting() {
  const std::lock_guard<std::mutex> lock(liveness_.state_->mutex);
  liveness_.state_->waiting_since.reset();
}

void Liveness::leave(const std::string& why) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  if (!state_->failure.empty()) return;  // told already, by this or another process
  state_->last_words = why;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kDiagnosis, [&] { return !state_->last_words || !state_->beating; });
}

std::string Liveness::ask(Question question) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->answer.reset();
  state_->asked = question;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, kDiagnosis, [&] { return state_->answer || !state_->beating; });
  if (question == Question::kWhatIsWrong && !state_->failed_at) state_->failed_at = Clock::now();
  if (state_->answer) return *state_->answer;
  if (!state_->failure.empty()) return state_->failure;
  return state_->failure = state_->silent_store();
}

}  // namespace mdm
