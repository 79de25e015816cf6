// Jobs and models as the native API shows them.
#pragma once

#include <string>

#include "serving/job.h"
#include "serving/json.h"
#include "serving/model_shelf.h"
#include "serving/order.h"

namespace mdm::serving {

std::string job_url(const Job& job);
Json view_of_job(const Job& job, const JobView& view);
Json view_of_job(const Job& job);

// One line of the list of models.
Json view_of_model(const ShelvedModel& model, const OrderLimits& limits);
// With config, structure and schedule.
Json full_view_of_model(const ShelvedModel& model, const OrderLimits& limits);
Json view_of_tokens(const PromptTokens& tokens);

Json view_of_path(const ShelvedModel& model, const Job& job);
Json view_of_attention(const ShelvedModel& model, const Job& job);
Json view_of_times(const Job& job);

// An event as text/event-stream has it.
std::string text_of_event(const Job& job, const Job::Event& event);

}  // namespace mdm::serving
