// What a server asks of robots in the header X-Robots-Tag.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mdm::ingest {

/// The first of "noai", "noimageai", "noindex", "noimageindex" and "none" that holds for us, or "". A value is a list
/// of rules between commas; "NAME: rules" holds for the robot with that name alone (`agent`, in any case; a product
/// token such as "libmdm"). Rules with a value of their own ("max-snippet: 5", "unavailable_after: DATE") are no names.
std::string_view refusing_rule(const std::vector<std::string>& values, std::string_view agent);

}  // namespace mdm::ingest
