# The examples in the documentation of what operators use, in a cluster of one.
defmodule Tiebeam.OperationsDocTest do
  use ExUnit.Case

  setup_all do
    start_supervised!({Tiebeam, name: MyApp.Cluster})
    :ok
  end

  doctest Tiebeam.Capabilities
  doctest Tiebeam.Metrics
  doctest Tiebeam.Plug.Health
  doctest Tiebeam.Test
end
