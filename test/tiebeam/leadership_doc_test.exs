# The examples in the documentation of leadership, in a cluster of one.
defmodule Tiebeam.LeadershipDocTest do
  use ExUnit.Case

  import Support.Eventually

  setup_all do
    start_supervised!({Tiebeam, name: MyApp.Cluster, voters: [node()]})
    eventually(fn -> Tiebeam.Leader.leader?(MyApp.Cluster) end)
    :ok
  end

  doctest Tiebeam.Leader
  doctest Tiebeam.KV
  doctest Tiebeam.Lock
  doctest Tiebeam.Singleton
end
