// Lists, archives, contact sheet and progress put together for the verbs that look at data sets.
#pragma once

#include <functional>
#include <vector>

#include "ingest/listing.h"
#include "ingest/walk.h"
#include "mdm/ingest/survey.h"

namespace mdm::ingest {

struct SurveyKind {
  bool whole = true;      ///< WalkOptions::whole
  bool unlisted = false;  ///< WalkOptions::unlisted
};

/// Faults of the lists go to `faults` and come first; `take` gets each archive. False when stopped. ConfigError when
/// there is no list.
bool survey(const SurveySettings& settings, const SurveyKind& kind, const FaultSink& faults,
            const std::function<void(const WalkedArchive&)>& take);

}  // namespace mdm::ingest
