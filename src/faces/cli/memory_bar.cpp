#include "faces/cli/memory_bar.h"

#include <algorithm>
#include <array>
#include <numeric>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "faces/cli/fields.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

constexpr int usual_width = 80;
constexpr int indent = 2;
/// A desktop has dozens of programs on its GPU; the biggest are of interest.
constexpr std::size_t most_strangers = 6;

struct Fill {
  std::string_view fancy, simple;
  Ink ink;
};
/// Of the services, one after the other; with more than these, they begin again.
constexpr std::array<Fill, 6> service_fills{{{"█", "#", Ink::green},
                                             {"▓", "@", Ink::cyan},
                                             {"▚", "%", Ink::magenta},
                                             {"▤", "&", Ink::blue},
                                             {"▦", "O", Ink::green},
                                             {"▩", "X", Ink::cyan}}};
constexpr Fill orphan_fill{"!", "!", Ink::red}, foreign_fill{"/", "/", Ink::yellow},
    unattributed_fill{"?", "?", Ink::plain}, reserved_fill{"=", "=", Ink::dim}, free_fill{"░", ".", Ink::dim};

std::int64_t count_of(const json::value& bytes) {
  return static_cast<std::int64_t>(number(bytes).value_or(0));
}

BarPart part_of(const Fill& fill, std::int64_t bytes, const Screen& screen) {
  BarPart part;
  part.fill = screen.unicode ? fill.fancy : fill.simple;
  part.ink = fill.ink;
  part.bytes = bytes;
  part.amount = to_string(Bytes(bytes));
  return part;
}

std::string note_of(const json::value& holder) {
  const auto kind = text(member(holder, "holder")), why = text(member(holder, "why")),
             user = text(member(holder, "user"));
  if (why == "unwanted") return kind + ": no goal wants it";
  if (why == "undefined") return kind + ": no file defines it";
  if (why == "escaped") return kind + ": it has left its unit";
  if (why == "unseen") return kind + ": ended, or not to be seen from here";
  return user.empty() ? kind : fmt::format("{}, user {}", kind, user);
}

BarPart holder_part(const json::value& holder, const Fill& fill, const Screen& screen) {
  const auto used = count_of(member(holder, "used"));
  BarPart part = part_of(fill, used, screen);
  const bool complete = truth(member(holder, "complete"));
  if (!complete) part.amount = used == 0 ? "not available" : "> " + part.amount;
  part.name = text(member(holder, "name"));
  part.note = note_of(holder);
  return part;
}

void add_holders(std::vector<BarPart>& parts, const json::value& account, std::string_view kind, const Screen& screen) {
  std::size_t shown = 0, hidden = 0;
  std::int64_t rest = 0;
  for (const auto& holder : elements(member(account, "holders"))) {
    if (text(member(holder, "holder")) != kind) continue;
    if (kind == "foreign" && shown == most_strangers) {
      ++hidden;
      rest += count_of(member(holder, "used"));
      continue;
    }
    const auto& fill = kind == "managed"  ? service_fills[shown % service_fills.size()]
                       : kind == "orphan" ? orphan_fill
                                          : foreign_fill;
    parts.push_back(holder_part(holder, fill, screen));
    ++shown;
  }
  if (hidden == 0) return;
  parts.push_back(part_of(foreign_fill, rest, screen));
  parts.back().name = fmt::format("{} more", hidden);
  parts.back().note = "foreign";
}

void add_figure(std::vector<BarPart>& parts, const json::value& account, const char* key, const Fill& fill,
                std::string note, const Screen& screen) {
  const auto& figure = member(account, key);
  if (figure.is_null() || (count_of(figure) == 0 && std::string_view(key) != "free")) return;
  parts.push_back(part_of(fill, count_of(figure), screen));
  parts.back().name = key;
  parts.back().note = std::move(note);
}

bool is_complete(const json::value& account) {
  const auto& holders = elements(member(account, "holders"));
  return std::all_of(holders.begin(), holders.end(), [](const auto& one) { return truth(member(one, "complete")); });
}

std::string legend(const std::vector<BarPart>& parts, const Screen& screen) {
  Table table({{""}, {"", true}, {"", false, true}, {"", false, true}});
  for (const auto& part : parts)
    table.add({{part.fill, part.ink}, {part.amount}, {part.name}, {part.note, Ink::dim}});
  return table.render(screen, indent, false);
}

std::string render_account(const std::string& title, const json::value& account, std::string_view if_unknown,
                           const Screen& screen) {
  // One column is left free: some terminals wrap when the last one is written.
  Screen narrower = screen;
  narrower.width = (screen.width ? screen.width : usual_width) - 1;
  const bool known = number(member(account, "total")) && number(member(account, "free"));
  const auto total = count_of(member(account, "total")), used = total - count_of(member(account, "free"));
  const auto figures = known ? fmt::format("  {} of {}", Bytes(used).to_mib(), to_string(Bytes(total))) : "";
  std::string out =
      paint(screen, Ink::bold, fit(screen, title, narrower.width - display_width(figures))) + figures + "\n";
  const auto parts = parts_of(account, screen);
  const std::string blank(indent, ' ');
  if (known)
    out += blank + draw_bar(parts, screen, narrower.width - indent) + "\n";
  else
    for (const auto& line : wrapped(if_unknown, narrower.width - indent))
      out += blank + paint(screen, Ink::yellow, line) + "\n";
  out += legend(parts, narrower);
  if (const auto excess = count_of(member(account, "overcounted")); excess > 0)
    for (const auto& line : wrapped(fmt::format("The processes' figures exceed what is used by {}: memory that they "
                                                "share is counted in each.",
                                                to_string(Bytes(excess))),
                                    narrower.width - indent))
      out += blank + paint(screen, Ink::dim, line) + "\n";
  return out;
}

std::string title_of(const json::value& gpu) {
  return fmt::format("GPU {}  {}", plain(member(gpu, "index")), text(member(gpu, "name")));
}

std::string title_of_slice(const json::value& slice) {
  std::vector<std::string> names;
  for (const auto& device : elements(member(slice, "devices"))) {
    auto name = text(member(device, "name"));
    if (const auto profile = name.find("MIG "); profile != std::string::npos) name.erase(0, profile);
    names.push_back(name.empty() ? text(member(device, "uuid")) : name);
  }
  return fmt::format("{}, instance {}", join(names, ", "), plain(member(slice, "gpu_instance")));
}

}  // namespace

std::vector<int> share_cells(const std::vector<std::int64_t>& amounts, int width) {
  std::vector<int> cells(amounts.size(), 0);
  double sum = 0;
  for (const auto amount : amounts)
    sum += static_cast<double>(std::max<std::int64_t>(0, amount));
  if (sum <= 0 || width <= 0) return cells;
  // Biggest first: where there are fewer cells than parts, the smallest get none.
  std::vector<std::size_t> order(amounts.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return amounts[a] > amounts[b]; });
  int left = width;
  double fraction_left = sum;
  for (std::size_t i = 0; i < order.size() && left > 0; ++i) {
    const auto amount = static_cast<double>(std::max<std::int64_t>(0, amounts[order[i]]));
    if (amount <= 0) break;
    const auto others = std::count_if(order.begin() + static_cast<long>(i) + 1, order.end(),
                                      [&](auto other) { return amounts[other] > 0; });
    const int fair = static_cast<int>(amount / fraction_left * left + 0.5);
    const int most = std::max(1, left - static_cast<int>(others));  // one for each that is smaller
    cells[order[i]] = others == 0 ? left : std::clamp(fair, 1, most);
    left -= cells[order[i]];
    fraction_left -= amount;
  }
  return cells;
}

std::vector<BarPart> parts_of(const json::value& account, const Screen& screen) {
  std::vector<BarPart> parts;
  for (const char* kind : {"managed", "orphan", "foreign"})
    add_holders(parts, account, kind, screen);
  add_figure(parts, account, "unattributed", unattributed_fill,
             is_complete(account) ? "no process explains it" : "also of processes whose use is not available", screen);
  add_figure(parts, account, "reserved", reserved_fill, "the driver's own", screen);
  add_figure(parts, account, "free", free_fill, "", screen);
  return parts;
}

BarPart bar_part(const Screen& screen, Glyph fill, Ink ink, std::int64_t bytes) {
  return {std::string(glyph(screen, fill)), ink, bytes, {}, {}, {}};
}

BarPart service_part(std::size_t nth, const Screen& screen) {
  return part_of(service_fills[nth % service_fills.size()], 0, screen);
}

BarPart foreign_part(const Screen& screen) {
  return part_of(foreign_fill, 0, screen);
}

BarPart unattributed_part(const Screen& screen) {
  return part_of(unattributed_fill, 0, screen);
}

std::string draw_bar(const std::vector<BarPart>& parts, const Screen& screen, int width) {
  std::vector<std::int64_t> amounts;
  for (const auto& part : parts)
    amounts.push_back(part.bytes);
  const auto cells = share_cells(amounts, width);
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::string run;
    for (int cell = 0; cell < cells[i]; ++cell)
      run += parts[i].fill;
    out += paint(screen, parts[i].ink, run);
  }
  return out;
}

std::string render_ledger(const json::value& gpu, const Screen& screen) {
  const auto& ledger = member(gpu, "ledger");
  const bool sliced = truth(member(gpu, "mig"));
  auto out = render_account(title_of(gpu), ledger,
                            sliced ? "MIG is on: only root may ask about the whole of it" : "its memory cannot be read",
                            screen);
  for (const auto& slice : elements(member(ledger, "slices")))
    out += "\n" + render_account(title_of_slice(slice), slice, "its memory cannot be read", screen);
  return out;
}

namespace {

std::string line_of_account(const std::string& who, const json::value& account) {
  std::vector<std::string> parts;
  for (const char* kind : {"managed", "orphan", "foreign"}) {
    std::vector<std::string> names;
    bool complete = true;
    for (const auto& holder : elements(member(account, "holders"))) {
      if (text(member(holder, "holder")) != kind) continue;
      complete = complete && truth(member(holder, "complete"));
      names.push_back(text(member(holder, "name")));
    }
    if (names.empty()) continue;
    const auto used = count_of(member(account, kind));
    const auto amount = complete ? to_string(Bytes(used)) : used > 0 ? "> " + to_string(Bytes(used)) : "not available";
    parts.push_back(fmt::format("{} {} ({})", kind, amount, join(names, ", ")));
  }
  for (const char* key : {"unattributed", "reserved"})
    if (count_of(member(account, key)) > 0) parts.push_back(fmt::format("{} {}", key, mebibytes(member(account, key))));
  const auto& free = member(account, "free");
  parts.push_back(free.is_null() ? "memory cannot be read"
                                 : fmt::format("free {} of {}", mebibytes(free), mebibytes(member(account, "total"))));
  return fmt::format("{}: {}\n", who, join(parts, ", "));
}

}  // namespace

std::string ledger_lines(const json::value& gpu) {
  const auto& ledger = member(gpu, "ledger");
  const auto who = "GPU " + plain(member(gpu, "index"));
  auto out = line_of_account(who, ledger);
  for (const auto& slice : elements(member(ledger, "slices")))
    out += line_of_account(fmt::format("{} {}", who, title_of_slice(slice)), slice);
  return out;
}

}  // namespace gpumod::cli
