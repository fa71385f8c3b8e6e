// The engine as the simulated vLLM's API server sees it: questions by number, the messages that answer them, and the
// news that it is dead. For the loop's thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>

#include "sim/vllm_link.h"

namespace gpumod::sim {

class EngineClient {
 public:
  EngineClient(Loop& loop, VllmLink& link) : loop_(loop), link_(link) {}

  /// One question and the messages that come back for it. It ends when the object goes; the engine is told.
  class Call {
   public:
    Call(EngineClient& client, boost::json::object message);
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    /// Nothing: the engine is dead.
    Task<std::optional<boost::json::object>> next();

   private:
    friend class EngineClient;
    EngineClient& client_;
    std::int64_t id_;
    std::deque<boost::json::object> arrived_;
    Signal news_;
    bool over_ = false;  ///< the engine has said all
  };

  std::shared_ptr<Call> ask(boost::json::object message) { return std::make_shared<Call>(*this, std::move(message)); }
  void deliver(boost::json::object message);
  void set_ready(std::int64_t max_model_len) {
    ready_ = true;
    max_model_len_ = max_model_len;
  }
  void set_dead();
  bool ready() const { return ready_; }
  bool dead() const { return dead_; }
  std::int64_t max_model_len() const { return max_model_len_; }

 private:
  Loop& loop_;
  VllmLink& link_;
  std::map<std::int64_t, Call*> calls_;
  std::int64_t next_id_ = 1;
  std::int64_t max_model_len_ = 0;
  bool ready_ = false;
  bool dead_ = false;
};

}  // namespace gpumod::sim
