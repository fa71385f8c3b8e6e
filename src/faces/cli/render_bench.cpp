// How long switches took, and whether they are slower than on another day.

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string cache_words(const json::value& bench) {
  double bytes = 0, before = 0, after = 0, files = 0;
  for (const auto& transition : elements(member(bench, "transitions"))) {
    const auto& cache = member(transition, "cache");
    files += number(member(cache, "files")).value_or(0);
    bytes += number(member(cache, "bytes")).value_or(0);
    before += number(member(cache, "cached_before")).value_or(0);
    after += number(member(cache, "cached_after")).value_or(0);
  }
  if (files == 0) return "Cold, but no files of models are known that could be dropped from the page cache.";
  const auto mib = [](double amount) { return mebibytes(json::value(static_cast<std::int64_t>(amount))); };
  auto out = fmt::format(
      "Cold: of {} that models have on the disk, {} were in the page cache before the switches, and {} "
      "after they were dropped.",
      mib(bytes), mib(before), mib(after));
  // What is mapped stays, and of a file that is not ours to write the kernel says that all of it is there.
  if (after * 10 > bytes) out += " What stayed, or cannot be seen to have gone, may have been read from memory.";
  return out;
}

std::string changes(const json::value& list, const Screen& screen, std::string_view lead, Ink ink) {
  std::string out;
  for (const auto& change : elements(list))
    out += paragraph(text(member(change, "text")), screen, 8, lead, ink);
  return out;
}

}  // namespace

std::string render_bench(const json::value& answer, const Screen& screen) {
  const auto& bench = member(answer, "bench");
  Table table({{"FROM"},
               {"TO"},
               {"MEDIAN", true},
               {.title = "SPREAD", .right = true, .goes = 4},
               {.title = "LEAST", .right = true, .goes = 3},
               {.title = "MOST", .right = true, .goes = 2},
               {.title = "RUNS", .right = true, .goes = 1},
               {"FAILED", true}});
  for (const auto& transition : elements(member(bench, "transitions"))) {
    const auto& seconds = member(transition, "seconds");
    const auto runs = elements(member(seconds, "all")).size();
    const auto figure = [&](const char* key) { return runs == 0 ? std::string() : seconds_text(member(seconds, key)); };
    const auto failed = plain(member(transition, "failed"));
    table.add({{text(member(transition, "from"))},
               {text(member(transition, "to"))},
               {figure("median"), Ink::bold},
               {figure("spread"), Ink::dim},
               {figure("least"), Ink::dim},
               {figure("most"), Ink::dim},
               {std::to_string(runs), Ink::dim},
               {failed == "0" ? "" : failed, Ink::red}});
  }
  auto out = table.render(screen);
  if (truth(member(bench, "cold"))) out += paragraph(cache_words(bench), screen, 0);
  const auto& compared = member(bench, "compared");
  if (compared.is_null()) return out;
  out += changes(member(compared, "regressions"), screen, "slower:", Ink::red);
  out += changes(member(compared, "improvements"), screen, "faster:", Ink::green);
  if (elements(member(compared, "regressions")).empty() && elements(member(compared, "improvements")).empty())
    out += paragraph(fmt::format("Nothing is slower or faster than in {}.", text(member(compared, "file"))), screen, 0);
  for (const auto& gone : elements(member(compared, "missing")))
    out +=
        paragraph(fmt::format("{} to {} was not measured now.", text(member(gone, "from")), text(member(gone, "to"))),
                  screen, 8, "note:", Ink::yellow);
  for (const auto& note : texts(member(compared, "notes")))
    out += paragraph(note, screen, 8, "note:", Ink::yellow);
  return out;
}

}  // namespace gpumod::cli
