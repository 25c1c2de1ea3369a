defmodule Support.Eventually do
  @moduledoc "Waiting until something is true, with a deadline."

  # Long enough for a loaded machine; a test that passes never waits for it.
  @deadline 60_000
  @pause 10

  @doc "Runs `fun` until it answers neither `nil` nor `false`, and answers that; fails after `timeout` milliseconds."
  def eventually(fun, timeout \\ @deadline) when is_function(fun, 0) do
    until(fun, System.monotonic_time(:millisecond) + timeout, timeout)
  end

  defp until(fun, deadline, timeout) do
    cond do
      value = fun.() ->
        value

      System.monotonic_time(:millisecond) >= deadline ->
        ExUnit.Assertions.flunk("not true within #{timeout} ms: #{inspect(fun)}")

      true ->
        Process.sleep(@pause)
        until(fun, deadline, timeout)
    end
  end
end
