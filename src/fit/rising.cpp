#include "fit/rising.h"

#include <algorithm>

#include "fit/claim.h"

namespace gpumod {

namespace {

Residency residency_of(const Snapshot& snapshot, const ServiceId& id) {
  const auto view = snapshot.services.find(id);
  return view == snapshot.services.end() ? Residency::stopped : view->second.residency;
}

}  // namespace

std::optional<Bytes> still_to_take(const Snapshot& snapshot, const std::string& unit,
                                   const std::vector<const Service*>& members, const Footprints& known,
                                   const GpuSample& gpu) {
  const bool on_its_way = std::any_of(members.begin(), members.end(), [&](const Service* member) {
    return residency_of(snapshot, member->id) == Residency::starting;
  });
  if (!on_its_way) return Bytes();
  const auto used = gpus_used_by(snapshot, unit);
  const auto where = used.empty() ? gpus_open_to(snapshot, *members.front()) : used;
  if (std::find(where.begin(), where.end(), gpu.index) == where.end()) return Bytes();
  // Not listed yet, and free to go to any of several.
  const auto& selector = members.front()->gpu;
  const auto spread = selector.any() ? std::size_t{1} : selector.devices.size();
  if (where.size() > std::max(spread, used.size())) return std::nullopt;
  const auto held = held_by_unit(snapshot, unit, gpu);
  if (!held) return std::nullopt;
  Bytes claims;
  for (const auto* member : members) {
    const auto residency = residency_of(snapshot, member->id);
    if (residency != Residency::running && residency != Residency::starting) continue;
    const auto claim = claim_of(*member, footprint_of(known, member->id), gpu).bytes;
    if (!claim) return std::nullopt;
    claims += *claim;
  }
  return std::max(Bytes(), claims - *held);
}

}  // namespace gpumod
