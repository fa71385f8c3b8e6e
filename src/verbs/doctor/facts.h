// Everything that a doctor judges, as it was found. A part that could not be found out is an error that says why; the
// checks that need it are skipped with that reason, and all others go on.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "host/box.h"
#include "model/ledger.h"
#include "model/snapshot.h"
#include "verbs/drift.h"

namespace gpumod {

/// What the driver said when it was asked.
struct DriverAnswer {
  struct Card {
    int index = 0;
    std::string name;
    std::optional<bool> persistence;
  };
  std::string version;
  std::vector<Card> cards;
  std::vector<GpuInventory::Missing> missing;
};

struct ManagerFacts {
  std::string version;  ///< of systemd
  Limit memlock, nofile;
  std::optional<int> oom_score_adjust;  ///< what services get; unset: an older systemd
  bool own_hierarchy = false;           ///< cgroup2, with a cgroup of the manager's own
  std::set<std::string> controllers;    ///< that it may use for services
};

/// A program that services are started with.
struct ProgramFacts {
  std::string path;
  std::vector<ServiceId> services;
  std::string version;                 ///< "" when it does not say
  std::optional<Error> problem;        ///< not there, lost its interpreter, does not answer
  std::string environment;             ///< of the virtual environment that it lies in; "" if in none
  std::string environment_python;      ///< what bin/python of it leads to in the end; "" if nowhere
  std::set<std::string> packages_for;  ///< the Pythons that its packages are for: "python3.11"

  bool environment_lost() const { return !environment.empty() && environment_python.empty(); }
};

struct FolderFacts {
  std::string purpose;  ///< "configuration", "state", "cache", "runtime"
  std::filesystem::path path;
  bool there = false;
  bool is_folder = false;
  bool ours = false;
  bool can_be_made = true;  ///< of one that is not there
  unsigned mode = 0;
  DiskFacts disk;
  std::string problem;  ///< it could not be looked at
};

struct WeightsFacts {
  std::filesystem::path path;
  std::vector<ServiceId> services;
  Bytes size;                 ///< 0: not there
  bool may_download = false;  ///< then the service fetches what is not there
  std::string remote;         ///< the type of a file system on the network; "" for a local one
  Result<DiskFacts> disk;     ///< Errors: it did not answer in time
};

/// Switch and goal, as stored.
struct StoredFacts {
  std::optional<Goal> goal;
  std::string problem;                  ///< the state file is damaged: a sentence
  std::string under_way;                ///< what changes just now; "" for nothing
  std::string interrupted, what_to_do;  ///< a switch that was cut off
};

struct SeenFacts {
  Snapshot snapshot;
  std::vector<GpuLedger> ledgers;
  std::vector<Difference> differences;
};

struct DoctorFacts {
  std::string user;
  bool local = false;  ///< services run under gpumod's own supervisor
  Result<Catalog> catalog;
  Result<DriverFacts> driver;
  Result<DriverAnswer> answer;
  bool driver_silent = false;  ///< it was asked, and said nothing in time
  LibraryFacts nvml, cuda;
  Result<MemoryFacts> memory;
  Bytes shared_memory;  ///< size of /dev/shm; 0: unknown
  Result<ManagerFacts> manager;
  bool lingers = false;
  bool journal_hidden = false;  ///< this user may not read the system's journal
  std::vector<FolderFacts> folders;
  std::vector<ProgramFacts> programs;
  std::vector<WeightsFacts> models;
  Result<StoredFacts> state;
  Result<SeenFacts> seen;
};

}  // namespace gpumod
