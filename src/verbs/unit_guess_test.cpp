#include "verbs/unit_guess.h"

#include <gtest/gtest.h>

#include "verbs/unit_text.h"

namespace gpumod {
namespace {

std::optional<UnitGuess> guess(std::string_view command) {
  return guess_server(command_words(command, "/home/u"));
}

TEST(UnitGuess, ReadsALlamaServer) {
  const auto found =
      guess("%h/llama.cpp/build/bin/llama-server -m %h/models/glm.gguf -c 8192 --port 9000 --host 0.0.0.0 -a glm");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->engine, EngineKind::llamacpp);
  EXPECT_EQ(found->port, 9000);
  EXPECT_EQ(found->host, "");  // every address: the loopback reaches it
  EXPECT_EQ(found->model, "/home/u/models/glm.gguf");
  EXPECT_EQ(found->served_name, "glm");
  EXPECT_FALSE(found->router);
}

TEST(UnitGuess, KnowsARouterAndAnEmbeddingServer) {
  EXPECT_TRUE(guess("/usr/bin/llama-server --models-dir /m --port 7070")->router);
  EXPECT_TRUE(guess("/usr/bin/llama-server -m /m/e.gguf --embeddings")->embedding);
  EXPECT_TRUE(guess("vllm serve X/Y --runner pooling")->embedding);
}

TEST(UnitGuess, ReadsVllmInItsShapes) {
  for (const char* command :
       {"/home/u/vllm/.venv/bin/vllm serve Qwen/Qwen3-8B --port 8200 --gpu-memory-utilization=0.3 --host 10.0.0.5",
        "/usr/bin/python -m vllm.entrypoints.openai.api_server --model Qwen/Qwen3-8B --port=8200 "
        "--gpu-memory-utilization 0.3 --host 10.0.0.5",
        "/bin/bash -lc \"cd /x && exec vllm serve Qwen/Qwen3-8B --port 8200 --gpu-memory-utilization 0.3 --host "
        "10.0.0.5\""}) {
    const auto found = guess(command);
    ASSERT_TRUE(found) << command;
    EXPECT_EQ(found->engine, EngineKind::vllm) << command;
    EXPECT_EQ(found->model, "Qwen/Qwen3-8B") << command;
    EXPECT_EQ(found->port, 8200) << command;
    EXPECT_EQ(found->utilization, 0.3) << command;
    EXPECT_EQ(found->host, "10.0.0.5") << command;
  }
}

TEST(UnitGuess, WhatOnlyTheEnvironmentKnowsStaysUnset) {
  const auto found = guess("/usr/bin/llama-server -m ${MODEL} --port ${PORT}");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->port);
  EXPECT_EQ(found->usual_port, 8080);
  EXPECT_EQ(found->model, "");
}

TEST(UnitGuess, KnowsTheOthersAndNoStranger) {
  EXPECT_EQ(guess("/usr/bin/uvicorn app:app --port 9200")->engine, EngineKind::fastapi);
  EXPECT_EQ(guess("/usr/local/bin/ollama serve")->usual_port, 11434);
  EXPECT_FALSE(guess("/usr/bin/syncthing serve"));
  EXPECT_FALSE(guess("/usr/bin/vllm-exporter --port 1"));
  EXPECT_FALSE(guess(""));
}

}  // namespace
}  // namespace gpumod
