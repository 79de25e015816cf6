#include "ingest/survey.h"

#include <system_error>

#include "ingest/contact_sheet.h"
#include "mdm/core/error.h"
#include "mdm/core/files.h"
#include "mdm/net/http_client.h"
#include "mdm/text/mdm_tokenizer.h"
#include "mdm/text/t5_tokenizer.h"
#include "text/spiece_model.h"

namespace mdm {
namespace ingest {
namespace {

bool is_cancelled(const NetError& error) { return error.kind() == NetError::Kind::kCancelled; }

// False when stopped.
bool read_lists(const SurveySettings& settings, Listing& listing) {
  try {
    for (const auto& list : settings.lists) listing.add(list);
    return true;
  } catch (const NetError& error) {
    if (is_cancelled(error)) return false;
    throw;
  }
}

uint64_t bytes_of(const std::vector<ListedArchive>& archives) {
  uint64_t bytes = 0;
  for (const auto& archive : archives) {
    std::error_code code;
    const auto size = std::filesystem::file_size(archive.path, code);
    if (!code) bytes += size;
  }
  return bytes;
}

}  // namespace

bool survey(const SurveySettings& settings, const SurveyKind& kind, const FaultSink& faults,
            const std::function<void(const WalkedArchive&)>& take) {
  if (settings.lists.empty()) fail<ConfigError>("no data set is named");
  SurveyProgress progress;
  ContactSheet sheet(settings.sheet);
  const FaultSink counted = [&](Fault fault) {
    ++progress.faults;
    faults(std::move(fault));
  };
  Listing listing(settings.resolve_url, counted);
  if (!read_lists(settings, listing)) return false;
  WalkOptions options;
  options.whole = kind.whole;
  options.unlisted = kind.unlisted;
  options.tokenizer = settings.tokenizer.get();
  if (settings.tokenizer) options.silent = silent_ids(*settings.tokenizer);
  options.threads = settings.threads;
  options.stop = settings.stop;
  if (settings.show) {
    progress.total_bytes = bytes_of(listing.archives());
    options.advance = [&](uint64_t bytes, uint64_t samples) {
      progress.bytes += bytes;
      progress.samples += samples;
      settings.show(progress);
    };
  }
  uint64_t finished = 0;
  const bool all = walk(listing.archives(), options, [&](const WalkedArchive& archive) {
    for (const Fault& fault : archive.faults) counted(fault);
    sheet.offer(archive);
    take(archive);
    finished += archive.bytes();
    progress.bytes = std::max(progress.bytes, finished);  // pictures are not all there is in an archive
    if (settings.show) settings.show(progress);
  });
  if (all) sheet.write();
  return all;
}

}  // namespace ingest

std::shared_ptr<const Tokenizer> open_vocabulary(const std::filesystem::path& file) {
  if (looks_like_spiece_model(FileBytes::open(file)->view())) {
    return std::make_shared<T5Tokenizer>(T5Tokenizer::open(file));
  }
  return std::make_shared<MdmTokenizer>(MdmTokenizer::from_vocab(file));
}

}  // namespace mdm
