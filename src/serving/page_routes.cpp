// The page and what belongs to it.
#include "mdm/core/digest.h"
#include "serving/page_files.h"
#include "serving/service.h"

namespace mdm::serving {

void add_page_routes(Router& router) {
  for (const PageFile& file : page_files()) {
    const std::string tag = "\"" + sha256_hex(file.bytes).substr(0, 16) + "\"";
    router.add("GET", std::string(file.path), [&file, tag](const auto& call, const auto&) {
      HttpResponse response;
      response.headers = {{"ETag", tag}, {"Cache-Control", "no-cache"}};  // asked for again, and not sent again
      if (call->request().header("if-none-match") == tag) {
        response.status = 304;
        response.type.clear();
      } else {
        response.type = file.type;
        response.body = file.bytes;
      }
      call->answer(std::move(response));
    });
  }
}

}  // namespace mdm::serving
