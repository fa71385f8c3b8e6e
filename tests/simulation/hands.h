// The modelled actor: carries out commands on the modelled host and says what came of each, with the meaning and the
// deadlines of control/actor and control/actor_memory. It decides nothing that switching/ decides.
#pragma once

#include <deque>
#include <map>

#include "host.h"
#include "model/switching.h"
#include "switching/memory_watch.h"

namespace gpumod::simulation {

/// Where answers go.
class Inbox {
 public:
  virtual ~Inbox() = default;
  virtual void post(Event event, Duration in) = 0;
};

class Hands {
 public:
  Hands(const Catalogue& catalogue, Random& random, Weather& weather, Agenda& agenda, Host& host, Witness& witness,
        Inbox& inbox);

  void carry_out(const Command& command);
  void abandon(int step);
  void on_poll(const Entry& entry);
  void world_changed();
  /// Whoever waited for answers is gone; what was asked of the world goes on.
  void forget();
  bool busy() const;

  /// What the last check of memory for a step saw: free on each GPU, and when.
  struct Sighting {
    TimePoint at{};
    std::array<Bytes, most_gpus> free{};
  };
  const Sighting* sighting(int step) const {
    const auto found = sightings_.find(step);
    return found == sightings_.end() ? nullptr : &found->second;
  }

  /// When the memory of the unit whose fall this step proves was last seen to fall.
  TimePoint fell_at(int step) const {
    const auto found = falls_.find(step);
    return found == falls_.end() ? TimePoint{} : found->second.second;
  }

  /// The unit manager's job of a start or a stop begins, now that its message has arrived.
  void on_job(const Entry& entry);

 private:
  struct Task {
    bool live = false;
    unsigned id = 0;
    Command command;
    int unit = -1;
    int service = -1;
    TimePoint began{};
    TimePoint poll_at = TimePoint::max();
    bool abandoned = false;
    bool seen_on_its_way = false;
    bool answered = false;  // a probe, or a call, is under way and ends at poll_at
    unsigned restarts = 0;
    unsigned version = 0;
    std::optional<RoomWatch> room;
    std::optional<FallWatch> fall;
    std::vector<pid_t> pids;
    pid_t asked = 0;  // whose unit a verification asks
    int stage = 0;
    bool replies = true;
  };

  Task& new_task(const Command& command);
  void poll_in(Task& task, Duration in);
  void end(Task& task, Event::Kind kind, std::string text = {}, bool transient = false, pid_t main_pid = 0);
  void evaluate(Task& task);
  void check_memory(Task& task);
  void prove_release(Task& task);
  void prove_fall(Task& task);
  void await_ready(Task& task);
  void await_residency(Task& task);
  void verify(Task& task);
  void ask_engine(Task& task);
  void stop_unit(Task& task);
  void start_unit(Task& task);
  void explain_end(Task& task);
  bool sample(Task& task);
  MemoryReading read(int gpu) const;
  Duration bus(Task& task, bool& fails);
  void send_job(Task& task, Tick kind, Duration takes);
  bool strikes(Fault fault) { return weather_.strikes(fault, random_); }
  void credit(Fault fault, const Task& task) { witness_.saw_in(fault, task.command.step); }
  const Service* file(const Task& task) const;

  const Catalogue& catalogue_;
  Random& random_;
  Weather& weather_;
  Agenda& agenda_;
  Host& host_;
  Witness& witness_;
  Inbox& inbox_;
  std::deque<Task> tasks_;
  unsigned next_id_ = 1;
  std::vector<std::pair<int, std::vector<pid_t>>> stopped_;  // by unit: what it had when its stop was ordered
  std::vector<pid_t> ours_;                                  // of the last observation
  std::vector<Command> jobs_;                                // what the unit manager was asked for, by the entry's b
  std::map<int, Sighting> sightings_;
  std::map<int, std::pair<Bytes, TimePoint>> falls_;  // by step: what was held, and when that fell last
  bool looked_ = false;
  std::map<GpuIndex, Bytes> baseline_;  // what nobody held when the switch looked first
  TimePoint last_message_{};            // the bus keeps the order of one sender's messages
};

}  // namespace gpumod::simulation
