// A router's models and their processes. No HTTP: that is llama_router.cpp.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "sim/llama_child.h"
#include "sim/llama_listing.h"

namespace gpumod::sim {

enum class LlamaState { unloaded, loading, loaded, sleeping };
const char* to_string(LlamaState state);

/// Those who listen to /models/sse.
struct LlamaListener {
  explicit LlamaListener(Loop& loop) : news(loop) {}
  std::deque<std::string> events;
  Signal news;
};

class LlamaFleet {
 public:
  struct Model {
    explicit Model(Loop& loop) : changed(loop) {}
    ListedModel listed;
    LlamaState state = LlamaState::unloaded;
    bool failed = false;
    int exit_code = 0;
    bool ending = false;
    std::uint16_t port = 0;
    int in_flight = 0;
    TimePoint last_used;
    boost::json::value info;  ///< what its child said of it: "meta"
    std::shared_ptr<LlamaChild> child;
    Signal changed;
  };
  using Shared = std::shared_ptr<Model>;

  LlamaFleet(Loop& loop, LlamaSettings settings);

  /// Reads folder and preset again. What is gone and does not run is forgotten, and what failed may be tried anew.
  /// Errors: configuration.
  Result<void> reload();
  void load_on_startup();
  const std::map<std::string, Shared>& models() const { return models_; }
  /// By name or alias; null when there is none.
  Shared find(std::string_view name) const;

  enum class Patience { refuse, wait };
  /// Starts its process, once there is room: who is patient waits until another model is idle, as an autoload does.
  /// Errors: refused ("model is already running"), failed (the limit).
  Task<Result<void>> load(Shared model, Patience patience);
  /// Errors: refused ("model is not running").
  Result<void> unload(Shared model);
  /// Waits until it is no longer loading. Errors: failed.
  Task<Result<void>> loaded(Shared model);
  Task<void> unload_all();

  /// Held by a request for as long as it is on its way.
  std::shared_ptr<void> use(Shared model);
  /// Returns when no request is on its way.
  Task<void> quiet();
  std::vector<std::string> words(const Model& model) const;

  std::shared_ptr<LlamaListener> listen();

 private:
  bool has_room() const;
  Shared longest_unused() const;
  Result<void> spawn(Shared model);
  Task<void> watch(Shared model);
  Task<void> kill_after_timeout(Shared model, pid_t pid);
  void begin_end(Shared model);
  void hear(Shared model, std::string line);
  void tell(const Model& model, const char* event, boost::json::object data);

  Loop& loop_;
  LlamaSettings settings_;
  int most_ = 4;
  std::string program_;
  std::map<std::string, Shared> models_;
  std::vector<std::weak_ptr<LlamaListener>> listeners_;
  Signal moved_{loop_};  ///< a model has changed, or has one request less
};

}  // namespace gpumod::sim
