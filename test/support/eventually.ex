defmodule Support.Eventually do
  @moduledoc "Waiting until something is true, with a deadline."

  # Long enough for a loaded machine; a test that passes never waits for it.
  @deadline 60_000

  @doc "Runs `fun` until it answers neither `nil` nor `false`, and answers that; fails after `timeout` milliseconds."
  def eventually(fun, timeout \\ @deadline) when is_function(fun, 0),
    do: Tiebeam.Test.eventually(fun, within: timeout)
end
