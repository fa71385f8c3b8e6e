// What is really there at one moment: units, services, GPUs, ports. A snapshot is evidence; the goal is an intention.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/gpu.h"
#include "model/service.h"
#include "model/unit.h"

namespace gpumod {

/// A GPU by its index in NVML's order (CUDA_DEVICE_ORDER=PCI_BUS_ID gives CUDA the same order).
using GpuIndex = int;

struct ServiceView {
  ServiceId id;
  std::string unit;
  Residency residency = Residency::stopped;
  std::string detail;  ///< why it is failed or starting, in words; empty when there is nothing to say
};

/// Who holds a TCP port that some service wants.
struct PortHolder {
  std::uint16_t port = 0;
  std::string unit;     ///< the unit of ours that holds it; empty: a stranger
  pid_t pid = 0;        ///< 0: the kernel does not let us see the process
  std::string command;  ///< may be empty when the unit that should hold it does
  std::string user;     ///< then its number
};

/// A process on a GPU, as far as the kernel lets us see it.
struct GpuClient {
  std::string command;  ///< its name, printable; "": it has ended, or is of another pid namespace
  std::string user;
  std::string tag;  ///< GPUMOD_SERVICE that it carries although it is in no unit of ours: it escaped; "" otherwise
};

struct Snapshot {
  std::map<ServiceId, ServiceView> services;  ///< every service of the catalogue
  std::map<std::string, UnitStatus> units;    ///< every unit that is ours, running or not, by name
  std::set<std::string> outdated;  ///< of those, the ones that run and would be launched otherwise by their files now
  std::vector<GpuSample> gpus;
  std::optional<Error> gpu_problem;          ///< set: the GPUs could not be read, `gpus` is empty
  std::map<pid_t, std::string> unit_of_pid;  ///< for every process that belongs to a unit of ours, or to its container
  std::map<pid_t, GpuClient> clients;        ///< every process that NVML lists
  std::vector<PortHolder> ports;             ///< listeners on ports of the catalogue
};

/// What a unit's processes hold on one GPU. Unset: NVML does not say for at least one of them.
std::optional<Bytes> held_by_unit(const Snapshot& snapshot, const std::string& unit, const GpuSample& gpu);

/// The GPUs on which NVML lists processes of this unit.
std::vector<GpuIndex> gpus_used_by(const Snapshot& snapshot, const std::string& unit);
/// By its index, its UUID, or that of one of its devices.
bool names(const GpuSelector& selector, const GpuSample& gpu);
/// Those a service may go to; empty for one that uses none.
std::vector<GpuIndex> gpus_open_to(const Snapshot& snapshot, const Service& service);

/// The residency wanted of services. A goal is an intention: it is stored, never observed.
struct Goal {
  std::string mode;                       ///< the mode it came from; empty: none
  std::map<ServiceId, Residency> wanted;  ///< running, sleeping1, sleeping2 or stopped
  bool exclusive = true;                  ///< everything else of ours stops
};

}  // namespace gpumod
