defmodule Tiebeam.RegistryTest do
  use ExUnit.Case

  alias Tiebeam.{Group, Registry}

  @cluster MyApp.Cluster

  setup context do
    start_supervised!({Tiebeam, Keyword.merge([name: @cluster], context[:options] || [])})
    :ok
  end

  doctest Tiebeam.Registry
  doctest Tiebeam.Group
end
