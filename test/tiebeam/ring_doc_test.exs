# The examples in the documentation of rings and pools, in a cluster of one.
defmodule Tiebeam.RingDocTest do
  use ExUnit.Case

  import Support.Eventually

  setup_all do
    start_supervised!({Tiebeam, name: MyApp.Cluster, voters: [node()]})
    eventually(fn -> Tiebeam.Leader.leader?(MyApp.Cluster) end)
    :ok
  end

  doctest Tiebeam.Placement
  doctest Tiebeam.Pool
end
