// The ledger: who holds a GPU's memory. Every byte of the total stands in exactly one of its parts.
//
//   reserved      the driver's own, where it tells
//   managed       a service that the goal wants (or, while there is no goal at all, that a file defines)
//   orphan        ours, and nobody wants it, or it has escaped its unit
//   foreign       everybody else: counted, never touched
//   unattributed  in use, and explained by no process
//   free
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/gpu.h"
#include "model/service.h"

namespace gpumod {

/// What one unit, one escaped service, or one stranger's program holds.
struct Holding {
  enum class Kind { managed, orphan, foreign } kind = Kind::foreign;
  /// unwanted: its file is there, but no goal wants it. undefined: no file defines it. escaped: it carries our mark, but
  /// has left its unit. unseen: NVML lists it and the kernel shows no such process: it has just ended, or belongs to
  /// another pid namespace.
  enum class Why { none, unwanted, undefined, escaped, unseen } why = Why::none;
  std::string unit;                 ///< of ours; "": a stranger's, or escaped
  std::vector<ServiceId> services;  ///< whose memory it is: several where a router has several models
  std::string name;                 ///< for people, printable: services, unit or command
  std::string user;                 ///< a stranger's or an escaped one's
  std::vector<GpuProcess> processes;
  Bytes used;            ///< of those that NVML tells about
  bool complete = true;  ///< false: of at least one process NVML does not say how much it uses
};
std::string_view to_string(Holding::Kind kind);
std::string_view to_string(Holding::Why why);  ///< "" for none

/// total = reserved + managed + orphan + foreign + unattributed + free, less `overcounted`.
struct Account : GpuMemory {
  Bytes managed, orphan, foreign;
  std::optional<Bytes> used;          ///< total less reserved and free; unset where the memory cannot be read
  std::optional<Bytes> unattributed;  ///< includes what processes use of which NVML does not say how much
  Bytes overcounted;  ///< by how much the processes' figures exceed what is used: shared memory is counted in each
  std::vector<Holding> holdings;  ///< biggest first
};

/// The memory of one GPU instance of MIG, and the devices that share it.
struct InstanceLedger {
  struct Device {
    std::string uuid;
    std::string name;
    int compute_instance = 0;
  };
  int gpu_instance = 0;
  std::vector<Device> devices;
  Account account;
};

struct GpuLedger {
  int index = 0;
  std::string uuid;
  std::string name;
  std::optional<bool> mig;
  Account account;
  std::vector<InstanceLedger> instances;
};

}  // namespace gpumod
