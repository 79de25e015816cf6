// X-Robots-Tag as servers write it.
#include "ingest/robots.h"

#include <gtest/gtest.h>

namespace mdm::ingest {
namespace {

std::string refused(const std::vector<std::string>& values) { return std::string(refusing_rule(values, "libmdm")); }

TEST(Robots, RulesForAll) {
  EXPECT_EQ(refused({}), "");
  EXPECT_EQ(refused({"noai"}), "noai");
  EXPECT_EQ(refused({"all"}), "");
  EXPECT_EQ(refused({"nofollow, NoIndex"}), "noindex");
  EXPECT_EQ(refused({"nofollow", " noimageai "}), "noimageai");
  EXPECT_EQ(refused({"noarchive, nosnippet"}), "");
  EXPECT_EQ(refused({"none"}), "none");
  EXPECT_EQ(refused({"noindexing"}), "");
  EXPECT_EQ(refused({"*: noai"}), "noai");
}

TEST(Robots, RulesForOneRobot) {
  EXPECT_EQ(refused({"somebot: noindex, noai"}), "");
  EXPECT_EQ(refused({"somebot: noindex", "noai"}), "noai");  // each line begins anew
  EXPECT_EQ(refused({"LibMDM: noindex"}), "noindex");
  EXPECT_EQ(refused({"somebot: nofollow, libmdm: noai"}), "noai");
}

TEST(Robots, RulesWithValues) {
  EXPECT_EQ(refused({"max-snippet: 20, noai"}), "noai");
  EXPECT_EQ(refused({"unavailable_after: 25 Jun 2030 15:00:00 PST"}), "");
  EXPECT_EQ(refused({"otherbot: max-snippet: 20, noindex"}), "");
}

}  // namespace
}  // namespace mdm::ingest
