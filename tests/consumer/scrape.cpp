// Scraping from C++: a list of URLs in, shards out. Run without a list it shows that a missing one is an error.
#include <mdm/core/error.h>
#include <mdm/ingest/scrape.h>

#include <cstdio>

int main(int argc, char** argv) {
  mdm::ScrapeSettings settings;
  settings.urls = argc > 1 ? argv[1] : "absent.tsv";
  settings.output_dir = argc > 2 ? argv[2] : "scraped";
  try {
    const mdm::ScrapeResult result = mdm::scrape(settings);
    std::printf("%llu pictures\n", static_cast<unsigned long long>(result.counts.pictures));
  } catch (const mdm::DataError& error) {
    std::printf("no data: %s\n", error.what());
    return argc > 1 ? 3 : 0;
  }
}
