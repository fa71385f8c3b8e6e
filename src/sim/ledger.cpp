#include "sim/ledger.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace gpumod::sim {

namespace {

constexpr std::array<std::string_view, 4> listing_names = {"compute", "graphics", "mps", "both"};

Bytes sum_of(const std::map<std::string, Bytes>& allocations) {
  Bytes sum;
  for (const auto& [label, amount] : allocations)
    sum += amount;
  return sum;
}

}  // namespace

std::string_view to_string(Listing listing) {
  return listing_names[static_cast<std::size_t>(listing)];
}

std::optional<Listing> listing_named(std::string_view name) {
  const auto found = std::find(listing_names.begin(), listing_names.end(), name);
  if (found == listing_names.end()) return std::nullopt;
  return static_cast<Listing>(found - listing_names.begin());
}

Bytes Ledger::Returning::remaining(TimePoint now) const {
  if (now < since) return amount;
  if (now - since >= ramp) return {};
  const auto steps_done = (now - since) / (ramp / ramp_steps);
  return Bytes(amount.count() - amount.count() / ramp_steps * std::min<std::int64_t>(steps_done, ramp_steps));
}

std::optional<TimePoint> Ledger::Returning::next_change(TimePoint now) const {
  if (now < since) return since + ramp / ramp_steps;
  if (now - since >= ramp) return std::nullopt;
  const auto step = ramp / ramp_steps;
  return std::min(since + step * ((now - since) / step + 1), since + ramp);
}

Ledger::Memory Ledger::memory(int gpu, TimePoint now) const {
  const Card& card = cards_.at(static_cast<std::size_t>(gpu));
  Bytes used;
  for (const auto& [key, allocations] : allocations_)
    if (key.first == gpu) used += sum_of(allocations);
  for (const auto& part : returning_)
    if (part.gpu == gpu) used += part.remaining(now);
  return {card.total, card.reserved, used, card.total - card.reserved - used};
}

Result<void> Ledger::allocate(int gpu, HolderId holder, const std::string& label, Bytes amount, TimePoint now) {
  if (amount < Bytes()) return fail(ErrorCode::usage, "an amount of memory is never negative");
  const Memory memory = this->memory(gpu, now);
  if (amount > memory.free)
    return fail(ErrorCode::failed,
                fmt::format("CUDA out of memory: {} asked for, {} of {} are free on GPU {}", to_string(amount),
                            to_string(memory.free), to_string(memory.total - memory.reserved), gpu));
  if (amount > Bytes()) allocations_[{gpu, holder}][label] += amount;
  return {};
}

void Ledger::release(int gpu, HolderId holder, const std::string& label, TimePoint now) {
  const auto found = allocations_.find({gpu, holder});
  if (found == allocations_.end()) return;
  const auto part = found->second.find(label);
  if (part == found->second.end()) return;
  if (curve_.always) return_slowly(gpu, holder, part->second, now);
  found->second.erase(part);
  if (found->second.empty()) allocations_.erase(found);
}

void Ledger::ended(HolderId holder, TimePoint now) {
  for (int gpu = 0; has_gpu(gpu); ++gpu) {
    const auto found = allocations_.find({gpu, holder});
    if (found != allocations_.end()) {
      return_slowly(gpu, holder, sum_of(found->second), now);
      allocations_.erase(found);
    }
    listings_.erase({gpu, holder});
  }
}

Listing Ledger::listing_of(int gpu, HolderId holder) const {
  const auto found = listings_.find({gpu, holder});
  return found == listings_.end() ? Listing::compute : found->second;
}

void Ledger::return_slowly(int gpu, HolderId holder, Bytes amount, TimePoint now) {
  std::erase_if(returning_, [&](const Returning& part) { return part.remaining(now) == Bytes(); });
  // Steps of less than a nanosecond are none.
  const Duration ramp = curve_.ramp < Duration(ramp_steps) ? Duration{} : curve_.ramp;
  if (curve_.delay > Duration{} || ramp > Duration{})
    returning_.push_back({gpu, holder, amount, now + curve_.delay, ramp, curve_.listed, listing_of(gpu, holder)});
}

bool Ledger::knows(HolderId holder, TimePoint now) const {
  return std::any_of(allocations_.begin(), allocations_.end(),
                     [&](const auto& held) { return held.first.second == holder; }) ||
         std::any_of(returning_.begin(), returning_.end(), [&](const Returning& part) {
           return part.listed && part.holder == holder && part.remaining(now) > Bytes();
         });
}

std::vector<Ledger::Entry> Ledger::entries(int gpu, TimePoint now) const {
  std::map<HolderId, Entry> found;
  for (const auto& [key, allocations] : allocations_) {
    if (key.first != gpu) continue;
    Entry& entry = found[key.second];
    entry.allocations = allocations;
    entry.bytes = sum_of(allocations);
    entry.listing = listing_of(gpu, key.second);
  }
  for (const auto& part : returning_) {
    const Bytes remaining = part.remaining(now);
    if (part.gpu != gpu || !part.listed || remaining == Bytes()) continue;
    Entry& entry = found[part.holder];
    if (entry.allocations.empty()) entry.listing = part.listing;
    entry.bytes += remaining;
    entry.returning += remaining;
  }
  std::vector<Entry> entries;
  for (auto& [holder, entry] : found) {
    entry.holder = holder;
    entries.push_back(std::move(entry));
  }
  return entries;
}

Bytes Ledger::unlisted(int gpu, TimePoint now) const {
  Bytes sum;
  for (const auto& part : returning_)
    if (part.gpu == gpu && !part.listed) sum += part.remaining(now);
  return sum;
}

std::optional<TimePoint> Ledger::next_change(TimePoint now) const {
  std::optional<TimePoint> next;
  for (const auto& part : returning_) {
    const auto change = part.next_change(now);
    if (change && (!next || *change < *next)) next = change;
  }
  return next;
}

}  // namespace gpumod::sim
