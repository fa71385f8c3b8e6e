// store/ — what must survive us: the goal, the journal of switches, their history and recordings, what was measured, the
// models that were registered. Intentions and memories, never evidence: what is, is observed.
// It knows base/ and model/; it must never know how a switch is decided or carried out.
//
// One SQLite file in WAL mode with synchronous=FULL: a transaction that returned is on the disk. Only the holder of the
// mutation lock writes, but for the records of models, which no switch depends on; readers need no lock. A file that
// SQLite calls corrupt is moved aside by the next holder of the lock and a new one begun: nothing that people wrote is in
// it. Until then readers know nothing, and say so.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "model/footprint.h"
#include "model/switching.h"

namespace gpumod {

struct StoredSwitch {
  std::int64_t id = 0;
  std::string kind;  ///< the verb: "mode switch", "service start", "repair" …
  Goal goal;
  Goal previous;     ///< what a rollback restores
  std::string from;  ///< the mode that was the goal before, for people
  bool mutated = false;
  std::string failure;  ///< non-empty: the way forward was given up, for this reason
  std::string boot_id;
  std::string result;  ///< "" while it is under way, or was interrupted
  WallTime began;
  std::optional<WallTime> ended;
  std::string report;  ///< JSON of the answer, "" while under way
};

/// A command of the journal: what was ordered, and when.
struct StoredCommand {
  int step = -1;
  int attempt = 1;
  std::string command;  ///< "start_unit", "record_failure" …
  ServiceId service;
  std::string unit;
  WallTime issued;
};

/// A model that people registered: where it is, and what was read of it then. A memory for lists; whoever wants to know
/// how it is now looks at the files.
struct StoredModel {
  std::string id;
  std::string source;          ///< "gguf", "safetensors", "huggingface", "local"
  std::filesystem::path path;  ///< absolute; empty for a model of the hub
  std::string hub_id;          ///< "Qwen/Qwen3-8B"; empty for a local one
  std::string hub_file;        ///< one file of that repository; empty: the whole of it
  std::string facts;           ///< JSON
  WallTime registered;
};

/// What becomes of a state file that SQLite calls corrupt.
enum class WhenCorrupt {
  moved_aside,  ///< a new one is begun: for the holder of the mutation lock alone
  refused,      ///< an error: for whoever writes beside a switch
};

class Store {
 public:
  /// Opens or creates (0600) the database in `directory` (0700). Errors: environment when it cannot be written, or is
  /// corrupt and to be refused then.
  static Result<Store> open(const std::filesystem::path& directory, WhenCorrupt corrupt = WhenCorrupt::moved_aside);
  /// Opens for reading; nothing when there is none yet, or when whoever was making it died. A corrupt one reads as
  /// empty, with a notice: a reader moves nothing.
  static Result<std::optional<Store>> open_existing(const std::filesystem::path& directory);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  /// Set when the file was found corrupt on opening: a sentence for people.
  const std::string& notice() const;

  Result<std::optional<Goal>> goal() const;
  /// No goal was ever stored and no switch begun: new, or lost.
  Result<bool> knows_nothing() const;

  /// The id the next switch will have. Only the holder of the mutation lock may ask.
  Result<std::int64_t> next_switch_id() const;
  /// Writes the switch (if it is not there yet) and the commands about to be issued, in one durable transaction.
  Result<void> record_commands(const StoredSwitch& about, const std::vector<Command>& commands);
  /// Ends the switch and, in the same transaction, makes `goal` the goal where one is given and, with `closes_earlier`,
  /// closes every earlier switch that a crash left open: this one has dealt with what they left. Lets go of the oldest,
  /// with their commands: the newest 1000 stay, and older ones that never ended or have a recording.
  Result<void> end_switch(const StoredSwitch& about, const std::optional<Goal>& goal, bool closes_earlier);
  /// Sets only the goal.
  Result<void> set_goal(const Goal& goal);

  /// The newest switch that was begun and never ended.
  Result<std::optional<StoredSwitch>> unfinished() const;
  Result<std::vector<StoredSwitch>> history(std::size_t limit) const;
  /// Unset: there is none of that id.
  Result<std::optional<StoredSwitch>> switch_of(std::int64_t id) const;
  /// In the order in which they were issued.
  Result<std::vector<StoredCommand>> commands_of(std::int64_t id) const;

  /// Keeps the recording (JSON) of a switch that has ended, and lets go of the oldest: the newest 200 stay, of those as
  /// many as are 8 MiB together, the newest in any case. Not flushed to the disk.
  Result<void> keep_recording(std::int64_t id, const std::string& recording);
  /// Unset: there is none, or it was let go.
  Result<std::optional<std::string>> recording(std::int64_t id) const;
  /// Of which switches there is one.
  Result<std::set<std::int64_t>> recorded() const;

  /// Adds what runs have shown, and lets go of the oldest: of each subject the newest 20 runs under one key on one kind of
  /// GPU, 8 keys at most, 5000 runs of all. Not flushed to the disk: what a power cut takes of it is learned again.
  Result<void> remember(const std::vector<Measurement>& measurements);
  /// What was remembered under these keys, by subject. What cannot be read counts as not there.
  std::vector<Measurement> remembered(const std::map<std::string, std::string>& keys) const;
  /// Forgets everything that was measured of it; how many runs that were.
  Result<std::size_t> forget(const std::string& subject);

  /// The registered models, by id. One transaction each, so that no lock is needed beside a switch.
  Result<std::vector<StoredModel>> models() const;
  /// False, and nothing changed, when there is one of that id already.
  Result<bool> add_model(const StoredModel& model);
  /// Adds what `choose` makes of the records that are there, in one transaction: no other writer's come in between.
  /// An id that is taken already is left out.
  using ChooseModels = std::function<std::vector<StoredModel>(const std::vector<StoredModel>& there)>;
  Result<void> add_models(const ChooseModels& choose);
  /// False when there is none of that id.
  Result<bool> remove_model(const std::string& id);

  /// For measuring what durability costs: with false, a power cut can lose the last transactions.
  Result<void> set_durable(bool durable);

 private:
  struct State;
  explicit Store(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace gpumod
